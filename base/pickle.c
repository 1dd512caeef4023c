#include "base/pickle.h"

#include <string.h>

#include "base/memory.h"
#include "base/pickle_internal.h"

enum { VALUE_LIMIT = 1 << 21, STACK_LIMIT = 1 << 21, MEMO_LIMIT = 1 << 21, BLOCK = 256, TENSOR_COST = 4 };

typedef struct VlPickleBlock {
    struct VlPickleBlock *next;
    int64_t used;
    VlPickleValue values[BLOCK];
} VlPickleBlock;

typedef struct Machine {
    VlPickle *pickle;
    const char *text;
    int64_t size, position;
    VlPickleValue **stack, **memo;
    int64_t *marks;  // heights of the stack
    int64_t height, stack_capacity, marked, marks_capacity, memo_used, memo_capacity;
} Machine;

// ---- Values ----------------------------------------------------------------

VlStatus vl_pickle_make(VlPickle *pickle, VlPickleKind kind, VlPickleValue **value) {
    pickle->values += kind == VL_PICKLE_TENSOR ? TENSOR_COST : 1;
    if (pickle->values > VALUE_LIMIT) {
        return vl_error(VL_FORMAT, "the pickle makes more than %d values", VALUE_LIMIT);
    }
    if (!pickle->blocks || pickle->blocks->used == BLOCK) {
        VlPickleBlock *block;
        VL_TRY(VL_NEW(&block, 1));
        block->next = pickle->blocks;
        pickle->blocks = block;
    }
    *value = &pickle->blocks->values[pickle->blocks->used++];
    (*value)->kind = kind;
    return VL_OK;
}

static bool is_list(const VlPickleValue *value) {
    return value->kind == VL_PICKLE_LIST || value->kind == VL_PICKLE_TUPLE || value->kind == VL_PICKLE_DICTIONARY;
}

static VlStatus append(VlPickleValue *list, VlPickleValue *const *items, int64_t count) {
    int64_t used = list->as.list.count;
    VL_TRY(vl_reserve(&list->as.list.items, &list->as.list.capacity, used + count, (int64_t)sizeof *items));
    if (count) memcpy(list->as.list.items + used, items, (size_t)count * sizeof *items);
    list->as.list.count += count;
    return VL_OK;
}

void vl_pickle_free(VlPickle *pickle) {
    while (pickle->blocks) {
        VlPickleBlock *block = pickle->blocks;
        pickle->blocks = block->next;
        for (int64_t i = 0; i < block->used; i++) {
            VlPickleValue *value = &block->values[i];
            if (is_list(value)) vl_free(value->as.list.items);
            if (value->kind == VL_PICKLE_TENSOR) vl_free(value->as.tensor);
        }
        vl_free(block);
    }
    vl_free(pickle->storages.as.list.items);
    *pickle = (VlPickle){0};
}

// ---- Text and stack --------------------------------------------------------

static VlStatus take(Machine *machine, int64_t count, const unsigned char **bytes) {
    if (count > machine->size - machine->position) return vl_error(VL_FORMAT, "the pickle is truncated");
    *bytes = (const unsigned char *)machine->text + machine->position;
    machine->position += count;
    return VL_OK;
}

// *value = a little-endian number of `count` (at most 8) bytes without sign, below 2^63.
static VlStatus take_size(Machine *machine, int count, int64_t *value) {
    const unsigned char *bytes = NULL;
    uint64_t number = 0;
    VL_TRY(take(machine, count, &bytes));
    for (int i = count - 1; i >= 0; i--) number = number << 8 | bytes[i];
    if (number > INT64_MAX) return vl_error(VL_FORMAT, "a size in the pickle is beyond 2^63");
    *value = (int64_t)number;
    return VL_OK;
}

static VlStatus push(Machine *machine, VlPickleValue *value) {
    if (machine->height == STACK_LIMIT) return vl_error(VL_FORMAT, "the pickle's stack exceeds %d values", STACK_LIMIT);
    VL_TRY(vl_reserve(&machine->stack, &machine->stack_capacity, machine->height + 1, (int64_t)sizeof *machine->stack));
    machine->stack[machine->height++] = value;
    return VL_OK;
}

static VlStatus push_new(Machine *machine, VlPickleKind kind, VlPickleValue **value) {
    VL_TRY(vl_pickle_make(machine->pickle, kind, value));
    return push(machine, *value);
}

static VlStatus push_integer(Machine *machine, VlPickleKind kind, int64_t integer) {
    VlPickleValue *value = NULL;
    VL_TRY(push_new(machine, kind, &value));
    value->as.integer = integer;
    return VL_OK;
}

// The `count` values on top of the stack, above the last mark, leave it; *values stays valid until the next push.
static VlStatus pop(Machine *machine, int64_t count, VlPickleValue ***values) {
    int64_t floor = machine->marked ? machine->marks[machine->marked - 1] : 0;
    if (machine->height - floor < count) return vl_error(VL_FORMAT, "the pickle takes from an empty stack");
    machine->height -= count;
    *values = machine->stack + machine->height;
    return VL_OK;
}

// All values above the last mark leave the stack, and so does the mark.
static VlStatus pop_mark(Machine *machine, VlPickleValue ***values, int64_t *count) {
    if (!machine->marked) return vl_error(VL_FORMAT, "the pickle has no mark where one is needed");
    *count = machine->height - machine->marks[--machine->marked];
    machine->height -= *count;
    *values = machine->stack + machine->height;
    return VL_OK;
}

static VlStatus push_mark(Machine *machine) {
    if (machine->marked == STACK_LIMIT) return vl_error(VL_FORMAT, "the pickle has more than %d marks", STACK_LIMIT);
    VL_TRY(vl_reserve(&machine->marks, &machine->marks_capacity, machine->marked + 1, (int64_t)sizeof *machine->marks));
    machine->marks[machine->marked++] = machine->height;
    return VL_OK;
}

// The value on top, which stays.
static VlStatus top(Machine *machine, VlPickleValue **value) {
    VlPickleValue **values = NULL;
    VL_TRY(pop(machine, 1, &values));
    machine->height++;
    *value = *values;
    return VL_OK;
}

// ---- Memo ------------------------------------------------------------------

static VlStatus memo_put(Machine *machine, int64_t place) {
    VlPickleValue *value = NULL;
    VL_TRY(top(machine, &value));
    if (place >= MEMO_LIMIT) {
        return vl_error(VL_FORMAT, "the pickle uses place %lld of its memo; %d are allowed", (long long)place,
                        MEMO_LIMIT);
    }
    VL_TRY(vl_reserve(&machine->memo, &machine->memo_capacity, place + 1, (int64_t)sizeof *machine->memo));
    machine->memo_used += !machine->memo[place];
    machine->memo[place] = value;
    return VL_OK;
}

static VlStatus memo_get(Machine *machine, int64_t place) {
    if (place >= machine->memo_capacity || !machine->memo[place]) {
        return vl_error(VL_FORMAT, "the pickle reads place %lld of its memo, which is empty", (long long)place);
    }
    return push(machine, machine->memo[place]);
}

// ---- Scalars ---------------------------------------------------------------

// An integer in two's complement, little-endian, of `length` bytes.
static VlStatus push_long(Machine *machine, int64_t length) {
    const unsigned char *bytes = NULL;
    VlPickleValue *value = NULL;
    VL_TRY(take(machine, length, &bytes));
    if (length > 8) {
        VL_TRY(push_new(machine, VL_PICKLE_LONG, &value));
        value->as.text.bytes = (const char *)bytes;
        value->as.text.length = length;
        return VL_OK;
    }
    uint64_t number = length && bytes[length - 1] & 0x80 ? UINT64_MAX : 0;
    for (int64_t i = length - 1; i >= 0; i--) number = number << 8 | bytes[i];
    return push_integer(machine, VL_PICKLE_INTEGER, (int64_t)number);
}

static VlStatus push_real(Machine *machine) {
    const unsigned char *bytes = NULL;
    VlPickleValue *value = NULL;
    uint64_t bits = 0;
    VL_TRY(take(machine, 8, &bytes));
    for (int i = 0; i < 8; i++) bits = bits << 8 | bytes[i];  // big-endian, alone in this format
    VL_TRY(push_new(machine, VL_PICKLE_REAL, &value));
    memcpy(&value->as.real, &bits, sizeof bits);
    return VL_OK;
}

// Bytes behind their length of `prefix` bytes.
static VlStatus push_text(Machine *machine, VlPickleKind kind, int prefix) {
    const unsigned char *bytes = NULL;
    VlPickleValue *value = NULL;
    int64_t length = 0;
    VL_TRY(take_size(machine, prefix, &length));
    VL_TRY(take(machine, length, &bytes));
    VL_TRY(push_new(machine, kind, &value));
    value->as.text.bytes = (const char *)bytes;
    value->as.text.length = length;
    return VL_OK;
}

// A line without its end.
static VlStatus take_line(Machine *machine, VlPickleValue *line) {
    const char *begin = machine->text + machine->position;
    const char *end = memchr(begin, '\n', (size_t)(machine->size - machine->position));
    if (!end) return vl_error(VL_FORMAT, "the pickle is truncated");
    *line = (VlPickleValue){.kind = VL_PICKLE_TEXT, .as.text = {.bytes = begin, .length = end - begin}};
    machine->position += end - begin + 1;
    return VL_OK;
}

// ---- Lists and dictionaries ------------------------------------------------

// A new list, tuple or dictionary of what stands above the mark.
static VlStatus push_marked(Machine *machine, VlPickleKind kind) {
    VlPickleValue **items = NULL, *value = NULL;
    int64_t count = 0;
    VL_TRY(pop_mark(machine, &items, &count));
    VL_TRY(vl_pickle_make(machine->pickle, kind, &value));
    VL_TRY(append(value, items, count));
    return push(machine, value);
}

static VlStatus push_tuple(Machine *machine, int64_t count) {
    VlPickleValue **items = NULL, *value = NULL;
    VL_TRY(pop(machine, count, &items));
    VL_TRY(vl_pickle_make(machine->pickle, VL_PICKLE_TUPLE, &value));
    VL_TRY(append(value, items, count));
    return push(machine, value);
}

// Items, or keys and values, go into what stands below them.
static VlStatus extend(Machine *machine, VlPickleKind kind, VlPickleValue **items, int64_t count) {
    VlPickleValue *list = NULL;
    VL_TRY(top(machine, &list));
    if (list->kind != kind || (kind == VL_PICKLE_DICTIONARY && count % 2)) {
        return vl_error(VL_FORMAT, "the pickle puts items into what does not take them");
    }
    return append(list, items, count);
}

static VlStatus extend_marked(Machine *machine, VlPickleKind kind) {
    VlPickleValue **items = NULL;
    int64_t count = 0;
    VL_TRY(pop_mark(machine, &items, &count));
    return extend(machine, kind, items, count);
}

static VlStatus extend_by(Machine *machine, VlPickleKind kind, int64_t count) {
    VlPickleValue **items = NULL;
    VL_TRY(pop(machine, count, &items));
    return extend(machine, kind, items, count);
}

// ---- Names and calls -------------------------------------------------------

static VlStatus push_name(Machine *machine) {
    VlPickleValue module, name, *value = NULL;
    VL_TRY(take_line(machine, &module));
    VL_TRY(take_line(machine, &name));
    VL_TRY(vl_pickle_name(machine->pickle, &module, &name, &value));
    return push(machine, value);
}

static VlStatus push_stack_name(Machine *machine) {
    VlPickleValue **items = NULL, *value = NULL;
    VL_TRY(pop(machine, 2, &items));
    VL_TRY(vl_pickle_name(machine->pickle, items[0], items[1], &value));
    return push(machine, value);
}

static VlStatus call(Machine *machine) {
    VlPickleValue **items = NULL, *value = NULL;
    VL_TRY(pop(machine, 2, &items));
    VL_TRY(vl_pickle_reduce(machine->pickle, items[0], items[1], &value));
    return push(machine, value);
}

static VlStatus push_storage(Machine *machine) {
    VlPickleValue **items = NULL, *value = NULL;
    VL_TRY(pop(machine, 1, &items));
    VL_TRY(vl_pickle_storage(machine->pickle, items[0], &value));
    VL_TRY(append(&machine->pickle->storages, &value, 1));
    return push(machine, value);
}

// Attributes of an object: state_dict() puts `_metadata` (versions of modules) on its dictionary. No value has any
// here, and nobody needs these.
static VlStatus drop_attributes(Machine *machine) {
    VlPickleValue **items = NULL, *value = NULL;
    VL_TRY(pop(machine, 1, &items));
    VL_TRY(top(machine, &value));
    if (value->kind == VL_PICKLE_DICTIONARY) return VL_OK;
    return vl_error(VL_UNSUPPORTED, "the pickle sets attributes of an object that is no dictionary");
}

static VlStatus check_protocol(Machine *machine) {
    int64_t protocol = 0;
    VL_TRY(take_size(machine, 1, &protocol));
    if (protocol >= 2 && protocol <= 5) return VL_OK;
    return vl_error(VL_UNSUPPORTED, "the pickle's protocol is %lld; 2 to 5 are read", (long long)protocol);
}

// ---- The machine -----------------------------------------------------------

// One step; the letters and numbers are those of Python's pickletools.
static VlStatus step(Machine *machine, unsigned char code) {
    VlPickleValue *value = NULL, **values = NULL;
    int64_t number = 0;
    switch (code) {
    case 0x80: return check_protocol(machine);
    case 0x95: return take_size(machine, 8, &number);  // FRAME: for readers of streams
    case 'N': return push_new(machine, VL_PICKLE_NONE, &value);
    case 0x88: return push_integer(machine, VL_PICKLE_BOOL, 1);
    case 0x89: return push_integer(machine, VL_PICKLE_BOOL, 0);
    case 'J': return push_long(machine, 4);
    case 'K':
    case 'M':
        VL_TRY(take_size(machine, code == 'K' ? 1 : 2, &number));
        return push_integer(machine, VL_PICKLE_INTEGER, number);
    case 0x8a:
    case 0x8b: VL_TRY(take_size(machine, code == 0x8a ? 1 : 4, &number)); return push_long(machine, number);
    case 'G': return push_real(machine);
    case 0x8c:
    case 'U': return push_text(machine, VL_PICKLE_TEXT, 1);  // 'U', 'T': the texts of Python 2
    case 'X':
    case 'T': return push_text(machine, VL_PICKLE_TEXT, 4);
    case 0x8d: return push_text(machine, VL_PICKLE_TEXT, 8);
    case 'C': return push_text(machine, VL_PICKLE_BYTES, 1);
    case 'B': return push_text(machine, VL_PICKLE_BYTES, 4);
    case 0x8e: return push_text(machine, VL_PICKLE_BYTES, 8);
    case 0x8f:
    case ']': return push_new(machine, VL_PICKLE_LIST, &value);
    case 'a': return extend_by(machine, VL_PICKLE_LIST, 1);
    case 0x90:
    case 'e': return extend_marked(machine, VL_PICKLE_LIST);
    case 'l': return push_marked(machine, VL_PICKLE_LIST);
    case ')': return push_tuple(machine, 0);
    case 0x85:
    case 0x86:
    case 0x87: return push_tuple(machine, code - 0x84);
    case 0x91:
    case 't': return push_marked(machine, VL_PICKLE_TUPLE);
    case '}': return push_new(machine, VL_PICKLE_DICTIONARY, &value);
    case 's': return extend_by(machine, VL_PICKLE_DICTIONARY, 2);
    case 'u': return extend_marked(machine, VL_PICKLE_DICTIONARY);
    case '(': return push_mark(machine);
    case '0': return pop(machine, 1, &values);
    case '1': return pop_mark(machine, &values, &number);
    case '2': VL_TRY(top(machine, &value)); return push(machine, value);
    case 'q':
    case 'r': VL_TRY(take_size(machine, code == 'q' ? 1 : 4, &number)); return memo_put(machine, number);
    case 0x94: return memo_put(machine, machine->memo_used);
    case 'h':
    case 'j': VL_TRY(take_size(machine, code == 'h' ? 1 : 4, &number)); return memo_get(machine, number);
    case 'c': return push_name(machine);
    case 0x93: return push_stack_name(machine);
    case 'R': return call(machine);
    case 'b': return drop_attributes(machine);
    case 'Q': return push_storage(machine);
    default:
        return vl_error(VL_UNSUPPORTED, "the pickle's opcode 0x%02x is not read: only tensors and plain data are",
                        code);
    }
}

static VlStatus run(Machine *machine) {
    const unsigned char *code = NULL;
    VlPickleValue **values = NULL;
    for (;;) {
        int64_t begin = machine->position;
        VL_TRY(take(machine, 1, &code));
        if (*code == '.') break;
        VL_TRY_CONTEXT(step(machine, *code), "byte %lld of the pickle", (long long)begin);
    }
    VL_TRY(pop(machine, 1, &values));
    if (machine->height || machine->marked) return vl_error(VL_FORMAT, "the pickle leaves values on its stack");
    machine->pickle->result = *values;
    machine->pickle->used = machine->position;
    return VL_OK;
}

VlStatus vl_pickle_run(VlPickle *pickle, const char *text, int64_t size) {
    Machine machine = {.pickle = pickle, .text = text, .size = size};
    *pickle = (VlPickle){.storages.kind = VL_PICKLE_LIST};
    VlStatus status = vl_reserve(&machine.stack, &machine.stack_capacity, 1, (int64_t)sizeof *machine.stack);
    if (!status) status = run(&machine);
    vl_free(machine.stack);
    vl_free(machine.marks);
    vl_free(machine.memo);
    if (status) vl_pickle_free(pickle);
    return status;
}
