#include "execute.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <vector>

#include "fiber.h"
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

enum { POISON = 0xff };  // NaN in f32 and bf16, -1 in integers

// A copy that has not arrived (execute_copy).
struct Copy {
    void *to;
    const void *from;
    int64_t bytes;
    int group;
};

struct Thread {
    uint3 index;
    Fiber *fiber;       // on which it waits or is ready to go on; NULL before it first waits, and when it has ended
    const char *waits;  // at what; NULL: it is ready, or has ended
    ExecuteWhere where;
    uint32_t mask;  // with which lanes; 0: with the block
    int groups;     // of copies, committed
    std::vector<Copy> copies;
};

// Threads that wait for each other.
struct Meeting {
    const char *name;
    ExecuteWhere where;
    uint32_t mask, arrived;  // of a warp's lanes
    void *arguments[EXECUTE_LANES];
};

// The ready threads, first to last.
struct Ring {
    enum { SIZE = EXECUTE_THREADS };
    int at[SIZE];
    unsigned first, count;
    bool empty() const { return count == 0; }
    int front() const { return at[first % SIZE]; }
    int pop() { return count--, at[first++ % SIZE]; }
    void push_back(int thread) { at[(first + count++) % SIZE] = thread; }
    void push_front(int thread) { at[--first % SIZE] = thread, count++; }
};

// The numbers 0 to count-1, from `start` on in steps modulo count.
struct Order {
    unsigned start, step, count;
    template <class Visit>
    void each(Visit visit) const {
        for (unsigned i = 0, at = start; i < count; i++) {
            visit((int)at);
            at = at + step < count ? at + step : at + step - count;
        }
    }
};

struct Machine {
    void (*thread)(const void *arguments);
    const void *arguments;
    int64_t shared, shared_limit;

    // The block that runs.
    bool running;
    int count, ended, current;  // threads, those that have ended, the one that runs
    Thread threads[EXECUTE_THREADS];
    Ring ready;
    Order order, lane_order;
    bool hurry;  // a warp goes on as far as it gets, before the others
    Meeting barrier;
    int arrived, agreed, result;         // at the barrier; gave true; result of the last barrier
    Meeting meetings[EXECUTE_THREADS];   // of a warp: at the index of the lowest lane of its mask
    int64_t static_shared;               // bytes
    std::vector<ExecuteShared *> known;  // static shared memory in use
    char *dynamic_end;

    Fiber outside;  // the caller of execute_grid
    Fiber *fiber;   // that runs
    std::vector<Fiber *> idle;
};

static Machine &machine = *new Machine();  // lives as long as its fibers

bool execute_running() { return machine.running; }

int execute_lane() { return machine.current % EXECUTE_LANES; }

// ---- Messages --------------------------------------------------------------

static void say_place() {
    if (!machine.running) return;
    uint3 thread = machine.threads[machine.current].index;
    fprintf(stderr, "cuda_host: block (%u,%u,%u) of (%u,%u,%u), thread (%u,%u,%u) of (%u,%u,%u): ", blockIdx.x,
            blockIdx.y, blockIdx.z, gridDim.x, gridDim.y, gridDim.z, thread.x, thread.y, thread.z, blockDim.x,
            blockDim.y, blockDim.z);
}

void execute_fail(const char *format, ...) {
    say_place();
    va_list list;
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
    abort();
}

static bool same_place(const ExecuteWhere &a, const ExecuteWhere &b) {
    return a.line() == b.line() && a.column() == b.column() && a.file_name() == b.file_name();
}

// Where a thread waits, in words.
struct Words {
    char text[512];
    Words(const char *name, uint32_t mask, const ExecuteWhere &where) {
        char lanes[32] = "";
        if (mask) snprintf(lanes, sizeof lanes, " with mask %08x", mask);
        snprintf(text, sizeof text, "%s%s (%s:%u)", name, lanes, where.file_name(), (unsigned)where.line());
    }
    explicit Words(const Thread &thread) : Words(thread.waits, thread.mask, thread.where) {}
};

// All ready threads have run, not all have ended: a thread waits for one that does not come.
static void fail_stuck() {
    for (int i = 0; i < machine.count; i++) {
        const Thread &waiting = machine.threads[i];
        if (!waiting.waits) continue;
        int first = waiting.mask ? i - i % EXECUTE_LANES : 0;
        int last = waiting.mask ? first + EXECUTE_LANES : machine.count;
        for (int j = first; j < last; j++) {
            const Thread &other = machine.threads[j];
            if (waiting.mask && !(waiting.mask >> (j - first) & 1)) continue;
            if (other.waits && other.mask == waiting.mask) continue;
            machine.current = i;
            execute_fail("waits at %s, which thread (%u,%u,%u) does not reach: it %s %s", Words(waiting).text,
                         other.index.x, other.index.y, other.index.z, other.waits ? "waits at" : "has ended",
                         other.waits ? Words(other).text : "");
        }
    }
    execute_fail("no thread can go on");
}

// A thread comes to where others wait: it must be the same place.
static void check_meeting(const Meeting &meeting, const char *name, const ExecuteWhere &where) {
    if (meeting.name == name && same_place(meeting.where, where)) return;
    execute_fail("comes to %s, but others wait for it at %s", Words(name, 0, where).text,
                 Words(meeting.name, 0, meeting.where).text);
}

// ---- Faults ----------------------------------------------------------------

static void on_fault(int number, siginfo_t *information, void *context) {
    (void)context;
    execute_fail("%s at the address %p", strsignal(number), information->si_addr);
}

// While it lives, a fault is reported with its place, on a stack of its own as that of a thread may be full.
struct Faults {
    enum { COUNT = 4, STACK = 64 << 10 };
    static constexpr int NUMBERS[COUNT] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    struct sigaction before[COUNT];
    stack_t stack_before;
    Faults() {
        static char memory[STACK];
        stack_t stack = {};
        stack.ss_sp = memory;
        stack.ss_size = STACK;
        sigaltstack(&stack, &stack_before);
        struct sigaction action = {};
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        for (int i = 0; i < COUNT; i++) sigaction(NUMBERS[i], &action, &before[i]);
#ifdef __SANITIZE_ADDRESS__
        __sanitizer_set_death_callback(say_place);
#endif
    }
    ~Faults() {
        for (int i = 0; i < COUNT; i++) sigaction(NUMBERS[i], &before[i], NULL);
        sigaltstack(&stack_before, NULL);
    }
};

// Bytes beside those of an array, in the same page: AddressSanitizer watches them.
#ifdef __SANITIZE_ADDRESS__
static void forbid(const void *memory, int64_t bytes) { __asan_poison_memory_region(memory, (size_t)bytes); }
static void allow(const void *memory, int64_t bytes) { __asan_unpoison_memory_region(memory, (size_t)bytes); }
#else
static void forbid(const void *, int64_t) {}
static void allow(const void *, int64_t) {}
#endif

// ---- Threads ---------------------------------------------------------------

static void set_current(int thread) {
    machine.current = thread;
    threadIdx = machine.threads[thread].index;
}

static void run_threads();

// The fiber of the first ready thread: its own, or one that will start it; the outside when none is ready.
static Fiber *next_fiber() {
    if (machine.ready.empty()) return &machine.outside;
    if (Fiber *own = machine.threads[machine.ready.front()].fiber) return machine.ready.pop(), own;
    if (machine.idle.empty()) return fiber_create(run_threads);
    Fiber *idle = machine.idle.back();
    machine.idle.pop_back();
    return idle;
}

static void go_to(Fiber *fiber) {
    Fiber *from = machine.fiber;
    machine.fiber = fiber;
    fiber_switch(from, fiber);
}

// What a fiber does: starts threads while one that has not started is next. A thread that waits keeps the fiber.
static void run_threads() {
    for (;;) {
        while (!machine.ready.empty() && !machine.threads[machine.ready.front()].fiber) {
            int self = machine.ready.pop();
            set_current(self);
            machine.thread(machine.arguments);
            Thread &thread = machine.threads[self];
            thread.fiber = NULL;
            if (thread.groups || !thread.copies.empty()) {
                thread.groups = 0;
                thread.copies.clear();
            }
            machine.ended++;
        }
        Fiber *next = next_fiber();
        machine.idle.push_back(machine.fiber);
        go_to(next);
    }
}

static void begin_wait(const char *name, uint32_t mask, const ExecuteWhere &where) {
    Thread &thread = machine.threads[machine.current];
    thread.fiber = machine.fiber;
    thread.waits = name;
    thread.where = where;
    thread.mask = mask;
}

// Goes on with the next thread; returns when this one is next again.
static void wait() {
    int self = machine.current;
    Fiber *next = next_fiber();
    if (next != machine.fiber) go_to(next);
    set_current(self);
}

int execute_barrier(const char *name, bool predicate, ExecuteWhere where) {
    if (!machine.running) execute_fail("cuda_host: %s outside of a kernel", name);
    if (machine.arrived == 0) {
        machine.barrier.name = name;
        machine.barrier.where = where;
    }
    check_meeting(machine.barrier, name, where);
    begin_wait(name, 0, where);
    machine.agreed += predicate;
    if (++machine.arrived == machine.count) {
        machine.result = machine.agreed;
        machine.arrived = machine.agreed = 0;
        machine.order.each([](int thread) {
            machine.threads[thread].waits = NULL;
            machine.ready.push_back(thread);
        });
    }
    wait();
    return machine.result;
}

void execute_warp(const char *name, uint32_t mask, ExecuteCompute *compute, void *arguments, ExecuteWhere where) {
    if (!machine.running) execute_fail("cuda_host: %s outside of a kernel", name);
    int lane = execute_lane(), first = machine.current - lane, lanes = machine.count - first;
    if (!(mask >> lane & 1)) execute_fail("%s with mask %08x, which does not hold its own lane %d", name, mask, lane);
    if (lanes < EXECUTE_LANES && mask >> lanes) {
        execute_fail("%s with mask %08x in a warp of %d threads", name, mask, lanes);
    }
    Meeting &meeting = machine.meetings[first + __builtin_ctz(mask)];
    if (meeting.arrived == 0)
        meeting = Meeting{.name = name, .where = where, .mask = mask, .arrived = 0, .arguments = {}};
    check_meeting(meeting, name, where);
    if (meeting.mask != mask) execute_fail("%s with mask %08x, others with mask %08x", name, mask, meeting.mask);
    begin_wait(name, mask, where);
    meeting.arguments[lane] = arguments;
    meeting.arrived |= 1u << lane;
    if (meeting.arrived == mask) {
        meeting.arrived = 0;
        compute(meeting.arguments, mask);
        machine.lane_order.each([&](int of) {
            if (!(mask >> of & 1)) return;
            machine.threads[first + of].waits = NULL;
            if (machine.hurry) {
                machine.ready.push_front(first + of);
            } else {
                machine.ready.push_back(first + of);
            }
        });
    }
    wait();
}

// ---- Shared memory ---------------------------------------------------------

// Memory that ends at a page that is not accessible, and follows one.
static char *map_shared(int64_t bytes) {
    int64_t page = sysconf(_SC_PAGESIZE), size = (bytes + page - 1) / page * page;
    char *memory = (char *)mmap(NULL, (size_t)(size + 2 * page), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory + page, (size_t)size, PROT_READ | PROT_WRITE)) {
        execute_fail("no memory for %lld bytes of shared memory", (long long)bytes);
    }
    forbid(memory + page, size - bytes);
    return memory + page + size - bytes;
}

void *execute_shared_fill(ExecuteShared *shared, int64_t bytes) {
    if (!shared->memory) {
        shared->memory = map_shared(bytes);
        shared->bytes = bytes;
    }
    machine.static_shared += bytes;
    // A kernel that was given more dynamic memory than the plain 48 KiB has its static memory beside it.
    int64_t most = machine.shared_limit > EXECUTE_PLAIN_SHARED ? EXECUTE_SHARED : EXECUTE_PLAIN_SHARED;
    if (machine.static_shared > EXECUTE_PLAIN_SHARED || machine.static_shared + machine.shared > most) {
        execute_fail("%lld bytes of static and %lld of dynamic shared memory: too many",
                     (long long)machine.static_shared, (long long)machine.shared);
    }
    machine.known.push_back(shared);
    memset(shared->memory, POISON, (size_t)bytes);
    shared->block = execute_block;
    return shared->memory;
}

static int64_t aligned_shared() { return (machine.shared + 15) / 16 * 16; }

void *execute_dynamic_shared() { return machine.dynamic_end - aligned_shared(); }

static void size_dynamic_shared(int64_t bytes) {
    if (!machine.dynamic_end) machine.dynamic_end = map_shared(EXECUTE_SHARED) + EXECUTE_SHARED;
    machine.shared = bytes;
    forbid(machine.dynamic_end - EXECUTE_SHARED, EXECUTE_SHARED);
    allow(execute_dynamic_shared(), bytes);
}

void execute_check_shared(const char *name, const void *memory, int64_t bytes, int64_t alignment) {
    const char *begin = (const char *)memory, *dynamic = (const char *)execute_dynamic_shared();
    if ((intptr_t)begin % alignment)
        execute_fail("%s: %p is not a multiple of %lld", name, memory, (long long)alignment);
    if (begin >= dynamic && begin + bytes <= dynamic + machine.shared) return;
    for (const ExecuteShared *shared : machine.known) {
        if (begin >= shared->memory && begin + bytes <= shared->memory + shared->bytes) return;
    }
    execute_fail("%s: %lld bytes at %p are not in shared memory (dynamic: %lld bytes at %p)", name, (long long)bytes,
                 memory, (long long)machine.shared, (const void *)dynamic);
}

void execute_copy(void *to, const void *from, int64_t bytes) {
    Thread &thread = machine.threads[machine.current];
    execute_check_shared("a copy to shared memory", to, bytes, bytes);
    if ((intptr_t)from % bytes)
        execute_fail("a copy to shared memory: from %p, no multiple of %lld", from, (long long)bytes);
    memset(to, POISON, (size_t)bytes);
    thread.copies.push_back({to, from, bytes, thread.groups});
}

void execute_copy_commit() { machine.threads[machine.current].groups++; }

void execute_copy_wait(int groups) {
    Thread &thread = machine.threads[machine.current];
    std::erase_if(thread.copies, [&](const Copy &copy) {
        if (copy.group >= thread.groups - groups) return false;
        if (copy.from) {
            memcpy(copy.to, copy.from, (size_t)copy.bytes);
        } else {
            memset(copy.to, 0, (size_t)copy.bytes);
        }
        return true;
    });
}

// ---- The grid --------------------------------------------------------------

static uint64_t mixed(uint64_t value) {  // splitmix64
    value += 0x9e3779b97f4a7c15u;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

static Order make_order(uint64_t random, unsigned count) {
    static const unsigned primes[] = {1031, 1033, 1039, 1049, 1051, 1061, 1063, 1069};  // no divisor of a count
    switch (random % 3) {
    case 0: return {0, 1 % count, count};
    case 1: return {count - 1, count - 1, count};
    default: return {(unsigned)(random >> 32) % count, primes[random >> 8 & 7] % count, count};
    }
}

static void run_block() {
    uint64_t random = mixed(++execute_block);
    machine.order = make_order(random, (unsigned)machine.count);
    machine.lane_order = make_order(random, EXECUTE_LANES);
    machine.hurry = random >> 16 & 1;
    machine.ended = 0;
    machine.static_shared = 0;
    machine.known.clear();
    memset(execute_dynamic_shared(), POISON, (size_t)machine.shared);
    machine.order.each([](int thread) { machine.ready.push_back(thread); });
    go_to(next_fiber());
    if (machine.ended < machine.count) fail_stuck();
}

void execute_grid(dim3 grid, dim3 block, int64_t shared, int64_t shared_limit, void (*thread)(const void *arguments),
                  const void *arguments) {
    static uint64_t grids;
    if (machine.running) execute_fail("a kernel was launched from a kernel");
    Faults faults;
    machine.thread = thread;
    machine.arguments = arguments;
    size_dynamic_shared(shared);
    machine.shared_limit = shared_limit;
    machine.count = (int)(block.x * block.y * block.z);
    machine.outside = {};
    machine.fiber = &machine.outside;
    gridDim = grid;
    blockDim = block;
    for (unsigned i = 0; i < (unsigned)machine.count; i++) {
        machine.threads[i].index = {i % block.x, i / block.x % block.y, i / block.x / block.y};
    }
    machine.running = true;
    uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z;
    bool backward = grids++ % 2;
    for (uint64_t i = 0; i < blocks; i++) {
        uint64_t at = backward ? blocks - 1 - i : i;
        blockIdx = {(unsigned)(at % grid.x), (unsigned)(at / grid.x % grid.y), (unsigned)(at / grid.x / grid.y)};
        run_block();
    }
    machine.running = false;
}
