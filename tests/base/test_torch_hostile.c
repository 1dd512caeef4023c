// Files of PyTorch's made to do harm: each gets one line that says what is wrong, and nothing in it is executed.
#include "base/torch_file.h"
#include "tests/base/forge_zip.h"
#include "tests/base/support.h"

// Opens what was forged. An error leaves nothing behind and is one line that names the file.
static VlStatus open_zip(void **state, ForgedZip *zip) {
    VlTorchFile file;
    const char *path = scratch(state, "forged.pt");
    put_file(path, zip->bytes, (int64_t)zip->used);
    free(zip->bytes);
    *zip = (ForgedZip){0};
    VlStatus status = vl_torch_open(&file, path);
    if (status == VL_OK) {
        vl_torch_close(&file);
        return VL_OK;
    }
    assert_null(file.entries);
    assert_null(file.data);
    assert_null(file.records.records);
    assert_null(strchr(vl_error_text(), '\n'));
    assert_non_null(strstr(vl_error_text(), path));
    return status;
}

static VlStatus open_pickle(void **state, const void *pickle, size_t bytes) {
    ForgedZip zip = forge_torch(pickle, bytes);
    return open_zip(state, &zip);
}

#define P2 "\x80\x02"
#define P4 "\x80\x04"
#define FORGED(text, status, reason) \
    { text, sizeof(text) - 1, status, reason }

typedef struct Case {
    const char *pickle;
    size_t bytes;
    VlStatus status;
    const char *reason;
} Case;

static void check_cases(void **state, const Case *cases, size_t count) {
    for (size_t i = 0; i < count; i++) {
        vl_error_clear();
        VlStatus status = open_pickle(state, cases[i].pickle, cases[i].bytes);
        if (status != cases[i].status || !strstr(vl_error_text(), cases[i].reason)) {
            fail_msg("case %zu: status %d with '%s', not %d with '%s'", i, (int)status, vl_error_text(),
                     (int)cases[i].status, cases[i].reason);
        }
    }
}

static void nothing_is_executed(void **state) {
    static const char mark[] = "/tmp/vl_test_torch_was_executed";
    static const Case cases[] = {
        FORGED(P2 "cposix\nsystem\nX\x25\0\0\0touch /tmp/vl_test_torch_was_executed\x85R.", VL_UNSUPPORTED,
               "byte 2 of the pickle: the pickle asks for posix.system; only tensors and plain data are read"),
        FORGED(P2 "cos\nsystem\n.", VL_UNSUPPORTED, "asks for os.system"),
        FORGED(P4 "\x8c\x08"
                  "builtins\x8c\x04"
                  "eval\x93\x8c\x01"
                  "1\x85R.",
               VL_UNSUPPORTED, "asks for builtins.eval"),
        FORGED(P2 "c__builtin__\nexec\n.", VL_UNSUPPORTED, "asks for __builtin__.exec"),
        FORGED(P2 "ctorch.storage\n_load_from_bytes\n.", VL_UNSUPPORTED, "asks for torch.storage._load_from_bytes"),
        FORGED(P2 "ctorch._utils\n_rebuild_tensor_v2.__globals__\n.", VL_UNSUPPORTED,
               "asks for torch._utils._rebuild_tensor_v2.__globals__"),
        FORGED(P2 "cargparse\nNamespace\n.", VL_UNSUPPORTED, "asks for argparse.Namespace"),
        FORGED(P2 "c\n\x1b[2J\n.", VL_UNSUPPORTED, "asks for . [2J;"),
        FORGED(P2 "(ios\nsystem\n.", VL_UNSUPPORTED, "opcode 0x69 is not read"),
        FORGED(P2 "(cos\nsystem\no.", VL_UNSUPPORTED, "asks for os.system"),
        FORGED(P2 "ccollections\nOrderedDict\n)\x81.", VL_UNSUPPORTED, "opcode 0x81"),
        FORGED(P2 "\x82\x01.", VL_UNSUPPORTED, "opcode 0x82"),
        FORGED(P2 "Pid\n.", VL_UNSUPPORTED, "opcode 0x50"),
        FORGED(P2 "ccollections\nOrderedDict\nN\x85R.", VL_UNSUPPORTED,
               "calls collections.OrderedDict with arguments that are not known"),
        FORGED(P2 "ctorch\nSize\n).", VL_FORMAT, "leaves values on its stack"),
        FORGED(P2 "ctorch\nSize\n)R.", VL_UNSUPPORTED, "calls torch.Size with arguments"),
        FORGED(P2 "ctorch\nFloatStorage\n)R.", VL_UNSUPPORTED, "calls torch.FloatStorage"),
        FORGED(P2 "ctorch._utils\n_rebuild_parameter\nN\x89}\x87R.", VL_UNSUPPORTED,
               "calls torch._utils._rebuild_parameter"),
        FORGED(P2 "NNR.", VL_FORMAT, "calls what is no name"),
        FORGED(P2 "]}b.", VL_UNSUPPORTED, "sets attributes of an object that is no dictionary"),
        FORGED(P2 "ccollections\nOrderedDict\n.", VL_UNSUPPORTED, "a type or a bare storage is stored as data"),
    };
    unlink(mark);
    check_cases(state, cases, sizeof cases / sizeof *cases);
    assert_int_equal(access(mark, F_OK), -1);
}

static void damaged_pickles_are_refused(void **state) {
    static const Case cases[] = {
        FORGED("", VL_FORMAT, "the pickle is truncated"),
        FORGED(P2, VL_FORMAT, "the pickle is truncated"),
        FORGED(P2 ".", VL_FORMAT, "takes from an empty stack"),
        FORGED(P2 "a.", VL_FORMAT, "takes from an empty stack"),
        FORGED(P2 "N(0N.", VL_FORMAT, "takes from an empty stack"),  // not what lies below the mark
        FORGED(P2 "t.", VL_FORMAT, "has no mark"),
        FORGED(P2 "(N.", VL_FORMAT, "leaves values on its stack"),
        FORGED(P2 "NN.", VL_FORMAT, "leaves values on its stack"),
        FORGED(P2 "N..", VL_FORMAT, "bytes behind the end of the pickle"),
        FORGED("\x80\x01N.", VL_UNSUPPORTED, "protocol is 1; 2 to 5"),
        FORGED("\x80\x06N.", VL_UNSUPPORTED, "protocol is 6"),
        FORGED(P2 "X\xff\xff\xff\xff"
                  "a.",
               VL_FORMAT, "truncated"),
        FORGED(P4 "\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.", VL_FORMAT, "truncated"),
        FORGED(P4 "\x8d\0\0\0\0\0\0\0\x80.", VL_FORMAT, "a size in the pickle is beyond 2^63"),
        FORGED(P2 "\x8b\xff\xff\xff\xff.", VL_FORMAT, "truncated"),
        FORGED(P2 "h\0.", VL_FORMAT, "reads place 0 of its memo, which is empty"),
        FORGED(P2 "Nq\1h\0.", VL_FORMAT, "reads place 0 of its memo, which is empty"),
        FORGED(P2 "j\xff\xff\xff\xff.", VL_FORMAT, "reads place 4294967295"),
        FORGED(P2 "q\0.", VL_FORMAT, "takes from an empty stack"),
        FORGED(P2 "Nr\xff\xff\xff\xff.", VL_FORMAT, "uses place 4294967295 of its memo; 2097152 are allowed"),
        FORGED(P2 "NNa.", VL_FORMAT, "puts items into what does not take them"),
        FORGED(P2 "}(Nu.", VL_FORMAT, "puts items into what does not take them"),
        FORGED(P2 "]NNs.", VL_FORMAT, "puts items into what does not take them"),
        FORGED(P2 ")NNs.", VL_FORMAT, "puts items into what does not take them"),
        FORGED(P2 "cos\nsystem", VL_FORMAT, "truncated"),
        FORGED(P4 "NN\x93.", VL_FORMAT, "asks for a name that is no text"),
        FORGED(P2 "]q\0h\0a.", VL_FORMAT, "nested more than 64 deep, or a value contains itself"),
        FORGED(P2 "}q\0X\1\0\0\0ah\0s.", VL_FORMAT, "or a value contains itself"),
        FORGED(P2 "\x8a\x09\0\0\0\0\0\0\0\0\1.", VL_UNSUPPORTED, "an integer has more than 64 bits"),
        FORGED(P2 "X\1\0\0\0\xff.", VL_FORMAT, "a text is no UTF-8"),
        FORGED(P2 "}X\1\0\0\0\xffNs.", VL_FORMAT, "a key is no UTF-8"),
        FORGED(P2 "}X\3\0\0\0a\0bNs.", VL_FORMAT, "a key holds a zero byte"),
        FORGED(P2 "}NNs.", VL_UNSUPPORTED, "a key is neither text nor an integer"),
        FORGED(P2 "}(X\1\0\0\0aNX\1\0\0\0aNu.", VL_FORMAT, "at 'a': the key 'a' is in a dictionary twice"),
        FORGED(P2 "}(K\1NX\1\0\0\0"
                  "1Nu.",
               VL_FORMAT, "the key '1' is in a dictionary twice"),
    };
    check_cases(state, cases, sizeof cases / sizeof *cases);
}

// A pickle that grows; the owner frees .bytes.
static ForgedZip begin_pickle(void) {
    ForgedZip pickle = {0};
    forge_bytes(&pickle, P2, 2);
    return pickle;
}

static VlStatus end_pickle(void **state, ForgedZip *pickle) {
    forge_bytes(pickle, ".", 1);
    VlStatus status = open_pickle(state, pickle->bytes, pickle->used);
    free(pickle->bytes);
    return status;
}

static void bombs_do_not_go_off(void **state) {
    // Each list holds the one before it ten times: 10^30 values.
    ForgedZip pickle = begin_pickle();
    forge_bytes(&pickle, "]q\0", 3);
    for (int i = 0; i < 30; i++) {
        forge_bytes(&pickle, "0](", 3);
        for (int j = 0; j < 10; j++) forge_bytes(&pickle, (unsigned char[]){'h', (unsigned char)i}, 2);
        forge_bytes(&pickle, (unsigned char[]){'e', 'q', (unsigned char)(i + 1)}, 3);
    }
    assert_error(end_pickle(state, &pickle), VL_FORMAT, "unfolds to more than 2097152 values");
    // One long text, referred to over and over.
    enum { LONG = 1 << 20 };
    char *text;
    assert_ok(VL_NEW(&text, LONG));
    memset(text, 'x', LONG);
    pickle = begin_pickle();
    forge_bytes(&pickle, "X\0\0\x10\0", 5);
    forge_bytes(&pickle, text, LONG);
    forge_bytes(&pickle, "q\0000]q\1(", 7);
    for (int i = 0; i < 100; i++) forge_bytes(&pickle, "h\0", 2);
    forge_bytes(&pickle, "e", 1);
    assert_error(end_pickle(state, &pickle), VL_FORMAT, "unfolds to more than 67108864 bytes of text");
    // Deep, wide, and many marks.
    pickle = begin_pickle();
    for (int i = 0; i < 100000; i++) forge_bytes(&pickle, "]", 1);
    for (int i = 1; i < 100000; i++) forge_bytes(&pickle, "a", 1);
    assert_error(end_pickle(state, &pickle), VL_FORMAT, "nested more than 64 deep");
    memset(text, 'N', LONG);
    pickle = begin_pickle();
    for (int i = 0; i < 3; i++) forge_bytes(&pickle, text, LONG);
    assert_error(end_pickle(state, &pickle), VL_FORMAT, "makes more than 2097152 values");
    memset(text, '2', LONG);
    pickle = begin_pickle();
    forge_bytes(&pickle, "N", 1);
    for (int i = 0; i < 3; i++) forge_bytes(&pickle, text, LONG);
    assert_error(end_pickle(state, &pickle), VL_FORMAT, "stack exceeds 2097152 values");
    memset(text, '(', LONG);
    pickle = begin_pickle();
    for (int i = 0; i < 3; i++) forge_bytes(&pickle, text, LONG);
    assert_error(end_pickle(state, &pickle), VL_FORMAT, "has more than 2097152 marks");
    memset(text, 'k', LONG);
    pickle = begin_pickle();
    forge_bytes(&pickle, "}X\0\4\0\0", 6);
    forge_bytes(&pickle, text, 1024);
    forge_bytes(&pickle, "Ns", 2);
    assert_error(end_pickle(state, &pickle), VL_FORMAT, "is longer than 1000 bytes");
    vl_free(text);
}

// ---- Tensors ---------------------------------------------------------------

#define OPEN P2 "}X\1\0\0\0wctorch._utils\n_rebuild_tensor_v2\n("
#define STORAGE(key, elements) "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" key "X\3\0\0\0cpuK" elements "tQ"
#define EIGHT STORAGE("0", "\x08")
#define CLOSE "\x89}tRs."
#define TENSOR(view) OPEN EIGHT view CLOSE

static void false_tensors_are_refused(void **state) {
    static const Case cases[] = {
        FORGED(TENSOR("K\0K\2K\4\x86K\4K\1\x86"), VL_OK, ""),
        FORGED(TENSOR("K\0K\2K\4\x86K\5K\1\x86"), VL_FORMAT, "reaches element 8 of its storage, which has 8"),
        FORGED(TENSOR("K\1K\2K\4\x86K\4K\1\x86"), VL_FORMAT, "[2,4] f32 reaches element 8"),
        FORGED(TENSOR("K\x08)K\0\x85"), VL_FORMAT, "a tensor's description in the pickle is damaged"),
        FORGED(TENSOR("K\x08))"), VL_FORMAT, "reaches element 8"),
        FORGED(TENSOR("J\xff\xff\xff\xff))"), VL_FORMAT, "a tensor's offset is negative: -1"),
        FORGED(TENSOR("K\0J\xfe\xff\xff\xff\x85K\1\x85"), VL_FORMAT, "extent or stride is negative: -2, 1"),
        FORGED(TENSOR("K\0K\2\x85J\xff\xff\xff\xff\x85"), VL_FORMAT, "extent or stride is negative: 2, -1"),
        FORGED(TENSOR("K\0\x8a\x09\0\0\0\0\0\0\0\x80\0\x85K\1\x85"), VL_FORMAT, "no integer of 64 bits"),  // 2^63
        FORGED(TENSOR("K\0\x8a\x08\0\0\0\0\0\0\0\x80\x85K\1\x85"), VL_FORMAT, "negative"),                 // -2^63
        FORGED(TENSOR("K\0\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85K\1\x85"), VL_FORMAT, "reaches element"),
        FORGED(TENSOR("K\0\x8a\5\0\0\0\0\1\x8a\5\0\0\0\0\1\x86K\0K\0\x86"), VL_FORMAT, "size overflows"),
        FORGED(TENSOR("K\1\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85K\1\x85"), VL_FORMAT, "reaches element"),
        FORGED(TENSOR("K\1K\3\x85\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85"), VL_FORMAT, "size overflows"),
        FORGED(TENSOR("\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7fK\2\x85K\1\x85"), VL_FORMAT, "size overflows"),
        FORGED(TENSOR("K\0K\x09\x85K\0\x85"), VL_UNSUPPORTED, "[9] f32 repeats elements of its storage"),
        FORGED(TENSOR("K\0(K\1K\1K\1K\1K\1K\1t(K\1K\1K\1K\1K\1K\1t"), VL_UNSUPPORTED, "6 extents; at most 5"),
        FORGED(TENSOR("K\0X\1\0\0\0a\x85K\1\x85"), VL_FORMAT, "no integer of 64 bits"),
        FORGED(TENSOR("K\0]]"), VL_FORMAT, "a tensor's description in the pickle is damaged"),
        FORGED(TENSOR("N))"), VL_FORMAT, "a tensor's description in the pickle is damaged"),
        FORGED(OPEN "NK\0))" CLOSE, VL_FORMAT, "a tensor's description in the pickle is damaged"),
        FORGED(OPEN STORAGE("0", "\x09") "K\0))" CLOSE, VL_FORMAT, "has 9 f32 in the pickle, but 32 bytes in the file"),
        FORGED(OPEN STORAGE("0", "\x07") "K\0))" CLOSE, VL_FORMAT, "has 7 f32 in the pickle, but 32 bytes in the file"),
        FORGED(OPEN STORAGE("7", "\x08") "K\0))" CLOSE, VL_FORMAT,
               "at 'w': its storage 'archive/data/7' is not in the file"),
        FORGED(OPEN STORAGE("\0", "\x08") "K\0))" CLOSE, VL_FORMAT, "a storage's name in the pickle is damaged"),
        FORGED(OPEN EIGHT "K\0))\x89}}X\1\0\0\0nK\1stRs.", VL_UNSUPPORTED, "negated or conjugated"),
        FORGED(OPEN EIGHT "K\0))\x89}}tRs.", VL_OK, ""),
        FORGED(OPEN EIGHT "K\0))\x89tRs.", VL_UNSUPPORTED, "calls torch._utils._rebuild_tensor_v2 with arguments"),
        FORGED(P2 "NQ.", VL_FORMAT, "a storage's description in the pickle is damaged"),
        FORGED(P2 "(X\7\0\0\0storageNX\1\0\0\0"
                  "0NK\x08tQ.",
               VL_FORMAT, "a storage's description in the pickle is damaged"),
        FORGED(P2 "(X\6\0\0\0modulectorch\nFloatStorage\nX\1\0\0\0"
                  "0NK\x08tQ.",
               VL_FORMAT, "a storage's description in the pickle is damaged"),
        FORGED(P2 "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0"
                  "0NJ\xff\xff\xff\xfftQ.",
               VL_FORMAT, "a storage's description in the pickle is damaged"),
        FORGED(P2 "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0"
                  "0NK\x08(ttQ.",
               VL_UNSUPPORTED, "a view of another storage"),
        FORGED(P2 "(X\7\0\0\0storagectorch\nComplexFloatStorage\n", VL_UNSUPPORTED,
               "asks for torch.ComplexFloatStorage"),
        FORGED(P2 EIGHT ".", VL_UNSUPPORTED, "a bare storage is stored as data"),
        FORGED(P2 "ctorch._utils\n_rebuild_tensor_v2\n(" EIGHT "K\0))\x89}tR.", VL_UNSUPPORTED,
               "a tensor without a name"),
        // {"a": {"b": w}, "a.b": w}
        FORGED(P2 "ctorch._utils\n_rebuild_tensor_v2\n(" EIGHT "K\0))\x89}tRq\0000}(X\1\0\0\0a}X\1\0\0\0bh\0sX\3\0\0\0"
                  "a.bh\0u.",
               VL_FORMAT, "two tensors have the name 'a.b'"),
    };
    check_cases(state, cases, sizeof cases / sizeof *cases);
}

// ---- The format before PyTorch 1.6 -----------------------------------------

#define NUMBER "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
#define VERSION P2 "M\xe9\x03."
#define MACHINE P2 "}X\x0d\0\0\0little_endian\x88s."
#define HEAD NUMBER VERSION MACHINE
#define OBJECTS OPEN STORAGE("0", "\2") "K\0K\2\x85K\1\x85" CLOSE
#define KEYS(keys) P2 "](" keys "e."
#define KEY     \
    "X\1\0\0\0" \
    "0"
#define VALUES         \
    "\2\0\0\0\0\0\0\0" \
    "abcdefgh"

static void false_old_files_are_refused(void **state) {
    static const Case cases[] = {
        FORGED(HEAD OBJECTS KEYS(KEY) VALUES, VL_OK, ""),
        FORGED(NUMBER P2 "M\xea\x03." MACHINE, VL_UNSUPPORTED, "its version is not 1001"),
        FORGED(NUMBER VERSION P2 "}X\x0d\0\0\0little_endian\x89s.", VL_UNSUPPORTED, "its byte order is big"),
        FORGED(NUMBER VERSION P2 "}.", VL_FORMAT, "its byte order is not stated"),
        FORGED(HEAD P2 "cos\nsystem\n.", VL_UNSUPPORTED, "asks for os.system"),
        FORGED(HEAD OBJECTS KEYS("") VALUES, VL_FORMAT, "its list of storages does not fit its objects"),
        FORGED(HEAD OBJECTS KEYS(KEY KEY) VALUES VALUES, VL_FORMAT, "does not fit its objects"),
        FORGED(HEAD OBJECTS P2 ")." VALUES, VL_FORMAT, "does not fit its objects"),
        FORGED(HEAD OBJECTS KEYS("K\1") VALUES, VL_FORMAT, "the storage '' is unknown or stored twice"),
        FORGED(HEAD OBJECTS KEYS("X\1\0\0\0"
                                 "1") VALUES,
               VL_FORMAT, "the storage '1' is unknown or stored twice"),
        FORGED(HEAD OBJECTS KEYS(KEY) "\3\0\0\0\0\0\0\0abcdefgh", VL_FORMAT,
               "the storage '0' has 2 elements in the pickle, but 3 in the file"),
        FORGED(HEAD OBJECTS KEYS(KEY) "\2\0\0\0\0\0\0\0abcdefg", VL_FORMAT, "truncated: the storage '0' needs 8 bytes"),
        FORGED(HEAD OBJECTS KEYS(KEY) "\2\0", VL_FORMAT, "truncated"),
        FORGED(HEAD OBJECTS KEYS(KEY), VL_FORMAT, "truncated"),
        FORGED(HEAD P2 "}(X\1\0\0\0a(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0"
                       "0NK\1tQX\1\0\0\0b"
                       "(X\7\0\0\0storagectorch\nHalfStorage\nX\1\0\0\0"
                       "0NK\2tQu." KEYS(KEY),
               VL_FORMAT, "one storage has two sizes or types"),
        FORGED(HEAD P2 "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0"
                       "0N"
                       "\x8a\x08\0\0\0\0\0\0\0\x40tQ." KEYS(KEY),
               VL_FORMAT, "the size of a storage overflows"),
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ForgedZip zip = {0};
        forge_bytes(&zip, cases[i].pickle, cases[i].bytes);
        vl_error_clear();
        VlStatus status = open_zip(state, &zip);
        if (status != cases[i].status || !strstr(vl_error_text(), cases[i].reason)) {
            fail_msg("case %zu: status %d with '%s', not %d with '%s'", i, (int)status, vl_error_text(),
                     (int)cases[i].status, cases[i].reason);
        }
    }
}

// ---- Archives --------------------------------------------------------------

static ForgedZip good_zip(void) {
    return forge_torch(TENSOR("K\0K\x08\x85K\1\x85"), sizeof(TENSOR("K\0K\x08\x85K\1\x85")) - 1);
}

static void set_number(ForgedZip *zip, size_t at, uint64_t value, size_t count) {
    for (size_t i = 0; i < count; i++) zip->bytes[at + i] = (unsigned char)(value >> (8 * i));
}

// Places of fields in a local header and in a row of the directory.
enum { LOCAL_FLAGS = 6, LOCAL_METHOD = 8, LOCAL_CRC = 14, LOCAL_STORED = 18, LOCAL_SIZE = 22, LOCAL_NAME = 30 };
enum { ROW_FLAGS = 8, ROW_METHOD = 10, ROW_CRC = 16, ROW_STORED = 20, ROW_SIZE = 24, ROW_HEADER = 42, ROW_NAME = 46 };
enum { DATA = 2 };  // the record of the storage

static void set_sizes(ForgedZip *zip, int record, uint64_t value) {
    set_number(zip, zip->local[record] + LOCAL_STORED, value, 4);
    set_number(zip, zip->local[record] + LOCAL_SIZE, value, 4);
    set_number(zip, zip->entry[record] + ROW_STORED, value, 4);
    set_number(zip, zip->entry[record] + ROW_SIZE, value, 4);
}

static void false_records_are_refused(void **state) {
    ForgedZip zip = good_zip();
    assert_ok(open_zip(state, &zip));
    zip = good_zip();  // a zip bomb would need this
    set_number(&zip, zip.local[DATA] + LOCAL_METHOD, 8, 2);
    set_number(&zip, zip.entry[DATA] + ROW_METHOD, 8, 2);
    assert_error(open_zip(state, &zip), VL_UNSUPPORTED, "record 'archive/data/0': it is compressed (method 8)");
    zip = good_zip();
    set_number(&zip, zip.entry[DATA] + ROW_FLAGS, 1, 2);
    assert_error(open_zip(state, &zip), VL_UNSUPPORTED, "record 'archive/data/0': it is encrypted");
    zip = good_zip();
    set_number(&zip, zip.entry[DATA] + ROW_FLAGS, 0x20, 2);
    assert_error(open_zip(state, &zip), VL_UNSUPPORTED, "its flags 0x20 are not known");
    zip = good_zip();
    set_sizes(&zip, DATA, 0x7fffffff);
    assert_error(open_zip(state, &zip), VL_FORMAT, "its 2147483647 bytes at");
    zip = good_zip();
    set_sizes(&zip, DATA, 0xffffffff);
    assert_error(open_zip(state, &zip), VL_FORMAT, "its 4294967295 bytes at");
    zip = good_zip();
    set_sizes(&zip, DATA, 28);
    assert_error(open_zip(state, &zip), VL_FORMAT, "its storage has 8 f32 in the pickle, but 28 bytes in the file");
    zip = good_zip();
    set_sizes(&zip, DATA, 33);
    assert_error(open_zip(state, &zip), VL_FORMAT, "record 'archive/data/0' ends at");
    zip = good_zip();
    set_sizes(&zip, 3, 40);
    assert_error(open_zip(state, &zip), VL_FORMAT, "overlaps 'the directory'");
    zip = good_zip();
    set_number(&zip, zip.entry[DATA] + ROW_STORED, 31, 4);
    assert_error(open_zip(state, &zip), VL_FORMAT, "it is stored, but in another size than its own");
    zip = good_zip();
    set_number(&zip, zip.local[DATA] + LOCAL_SIZE, 31, 4);
    assert_error(open_zip(state, &zip), VL_FORMAT, "its local header states another size or CRC-32");
    zip = good_zip();
    set_number(&zip, zip.local[DATA] + LOCAL_METHOD, 8, 2);
    assert_error(open_zip(state, &zip), VL_FORMAT, "its local header contradicts the directory");
    zip = good_zip();
    zip.bytes[zip.local[DATA] + LOCAL_NAME] = 'A';
    assert_error(open_zip(state, &zip), VL_FORMAT, "its local header has another name");
    zip = good_zip();
    set_number(&zip, zip.entry[DATA] + ROW_HEADER, 0xfffffff0, 4);
    assert_error(open_zip(state, &zip), VL_FORMAT, "lie outside the file");
    zip = good_zip();
    set_number(&zip, zip.entry[DATA] + ROW_HEADER, zip.local[DATA] + 1, 4);
    assert_error(open_zip(state, &zip), VL_FORMAT, "no local header stands at");
    zip = good_zip();
    set_number(&zip, zip.entry[DATA] + ROW_HEADER, zip.used - 10, 4);
    assert_error(open_zip(state, &zip), VL_FORMAT, "truncated");
    zip = good_zip();
    zip.bytes[zip.local[0] + LOCAL_NAME + strlen("archive/data.pkl") + 2] ^= 1;
    assert_error(open_zip(state, &zip), VL_FORMAT, "record 'archive/data.pkl' is damaged: its CRC-32 is");
}

// The records that every good file has, and one more.
static VlStatus open_with(void **state, const char *name, const char *content) {
    ForgedZip zip = {0};
    forge_record(&zip, "archive/data.pkl", P2 "}.", 4);
    forge_record(&zip, "archive/version", "3\n", 2);
    forge_record(&zip, name, content, strlen(content));
    forge_end(&zip);
    return open_zip(state, &zip);
}

static void false_names_are_refused(void **state) {
    assert_ok(open_with(state, "archive/.data/serialization_id", "1"));
    assert_ok(open_with(state, "archive/byteorder", "little"));
    assert_error(open_with(state, "archive/byteorder", "big"), VL_UNSUPPORTED, "its byte order is 'big'");
    assert_error(open_with(state, "archive/byteorder", "little\n"), VL_UNSUPPORTED, "its byte order is 'little");
    assert_error(open_with(state, "archive/constants.pkl", "x"), VL_UNSUPPORTED, "a TorchScript program");
    assert_error(open_with(state, "../x", "x"), VL_FORMAT, "the record '../x' is not in the folder 'archive/'");
    assert_error(open_with(state, "archive/../x", "x"), VL_FORMAT, "the record 'archive/../x' is not in the folder");
    assert_error(open_with(state, "/etc/x", "x"), VL_FORMAT, "the record '/etc/x' is not in the folder");
    assert_error(open_with(state, "other/data.pkl", "x"), VL_FORMAT, "is not in the folder 'archive/'");
    assert_error(open_with(state, "archive/version", "3\n"), VL_FORMAT,
                 "'archive/version' is in the zip archive twice");
    assert_error(open_with(state, "", "x"), VL_FORMAT, "the name of record 2 of the zip archive is empty");
    ForgedZip zip = {0};
    forge_record(&zip, "archive/data.pkl", P2 "}.", 4);
    forge_end(&zip);
    assert_error(open_zip(state, &zip), VL_UNSUPPORTED, "the archive's version is ''");
    zip = (ForgedZip){0};
    forge_record(&zip, "archive/data.pkl", P2 "}.", 4);
    forge_record(&zip, "archive/version", "11\n", 3);
    forge_end(&zip);
    assert_error(open_zip(state, &zip), VL_UNSUPPORTED, "1 to 10 are read");
    zip = (ForgedZip){0};
    forge_record(&zip, "archive/data/data.pkl", P2 "}.", 4);
    forge_end(&zip);
    assert_error(open_zip(state, &zip), VL_FORMAT, "has no record ARCHIVE/data.pkl");
    zip = good_zip();
    zip.bytes[zip.local[DATA] + LOCAL_NAME + 3] = zip.bytes[zip.entry[DATA] + ROW_NAME + 3] = '\0';
    assert_error(open_zip(state, &zip), VL_FORMAT, "is empty or holds a zero byte");
}

static void false_ends_are_refused(void **state) {
    ForgedZip zip = good_zip();
    forge_bytes(&zip, "x", 1);
    assert_error(open_zip(state, &zip), VL_FORMAT, "does not end with a zip archive's end record");
    zip = good_zip();
    set_number(&zip, zip.end + 20, 1, 2);
    forge_bytes(&zip, "x", 1);
    assert_error(open_zip(state, &zip), VL_FORMAT, "does not end with a zip archive's end record");
    for (size_t field = 4; field <= 6; field += 2) {
        zip = good_zip();
        set_number(&zip, zip.end + field, 1, 2);
        assert_error(open_zip(state, &zip), VL_UNSUPPORTED, "several volumes");
    }
    zip = good_zip();
    set_number(&zip, zip.end + 10, 5, 2);
    assert_error(open_zip(state, &zip), VL_UNSUPPORTED, "several volumes");
    zip = good_zip();
    set_number(&zip, zip.end + 8, 0x00050005, 4);
    assert_error(open_zip(state, &zip), VL_FORMAT, "record 4 of the zip archive's directory is damaged");
    zip = good_zip();
    set_number(&zip, zip.end + 8, 0xffffffff, 4);
    assert_error(open_zip(state, &zip), VL_FORMAT, "claims 65535 records");
    zip = good_zip();
    set_number(&zip, zip.end + 8, 0x00030003, 4);
    assert_error(open_zip(state, &zip), VL_FORMAT, "holds more than its records");
    zip = good_zip();
    set_number(&zip, zip.end + 12, 0x7fffffff, 4);
    assert_error(open_zip(state, &zip), VL_FORMAT, "directory does not end at its end record");
    zip = good_zip();
    set_number(&zip, zip.end + 16, 0, 4);
    assert_error(open_zip(state, &zip), VL_FORMAT, "directory does not end at its end record");
    zip = good_zip();
    set_number(&zip, zip.entry[3] + 28, 0xffff, 2);
    assert_error(open_zip(state, &zip), VL_FORMAT, "record 3 of the zip archive's directory is cut");
}

// Moves the end record behind a ZIP64 record and its locator, which is what PyTorch always writes.
static void widen_end(ForgedZip *zip) {
    unsigned char end[22];
    memcpy(end, zip->bytes + zip->end, sizeof end);
    zip->used = zip->end;
    forge_bytes(zip, "PK\6\6", 4);
    forge_number(zip, 44, 8);
    forge_number(zip, 0, 4);  // versions
    forge_number(zip, 0, 8);  // volumes
    forge_number(zip, (uint64_t)zip->records, 8);
    forge_number(zip, (uint64_t)zip->records, 8);
    forge_number(zip, zip->end - zip->entry[0], 8);
    forge_number(zip, zip->entry[0], 8);
    forge_bytes(zip, "PK\6\7", 4);
    forge_number(zip, 0, 4);
    forge_number(zip, zip->end, 8);
    forge_number(zip, 1, 4);
    memset(end + 8, 0xff, 12);
    forge_bytes(zip, end, sizeof end);
}

static void zip64_is_read_and_checked(void **state) {
    enum { COUNT = 24, ALL = 32, BYTES = 40, OFFSET = 48, LOCATED = 56 + 8, END_COUNT = 76 + 10 };
    ForgedZip zip = good_zip();
    widen_end(&zip);
    assert_ok(open_zip(state, &zip));
    static const struct {
        size_t field;
        uint64_t value;
        size_t bytes;
        const char *reason;
    } cases[] = {
        {COUNT, 3, 8, "several volumes"},
        {ALL, UINT64_MAX, 8, "several volumes"},
        {BYTES, UINT64_MAX, 8, "directory does not end at its ZIP64 record"},
        {BYTES, 1, 8, "directory does not end at its ZIP64 record"},
        {OFFSET, UINT64_MAX, 8, "directory does not end at its ZIP64 record"},
        {LOCATED, UINT64_MAX, 8, "ZIP64 record is damaged or not where its locator says"},
        {4, 45, 8, "ZIP64 record is damaged or not where its locator says"},
        {0, 0, 4, "ZIP64 record is damaged or not where its locator says"},
        {56 + 16, 2, 4, "several volumes"},
        {END_COUNT, 3, 2, "several volumes"},
        {76 + 12, 3, 4, "two end records contradict each other"},
        {76 + 16, 3, 4, "two end records contradict each other"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        zip = good_zip();
        widen_end(&zip);
        set_number(&zip, zip.end + cases[i].field, cases[i].value, cases[i].bytes);
        VlStatus status = open_zip(state, &zip);
        if (status == VL_OK || !strstr(vl_error_text(), cases[i].reason)) {
            fail_msg("case %zu: status %d with '%s'", i, (int)status, vl_error_text());
        }
    }
    zip = good_zip();
    widen_end(&zip);
    set_number(&zip, zip.end + COUNT, 1ull << 40, 8);
    set_number(&zip, zip.end + ALL, 1ull << 40, 8);
    assert_error(open_zip(state, &zip), VL_FORMAT, "claims 1099511627776 records");
}

// A row of the directory whose sizes and place stand in a ZIP64 extra field.
static ForgedZip wide_row(uint64_t size, uint64_t stored, uint64_t header, size_t fields) {
    ForgedZip zip = good_zip();
    unsigned char tail[22];
    size_t row = zip.entry[3], name = 15, added = 4 + 8 * fields;
    memcpy(tail, zip.bytes + zip.end, sizeof tail);
    zip.used = zip.end;
    set_number(&zip, row + ROW_STORED, 0xffffffff, 4);
    set_number(&zip, row + ROW_SIZE, 0xffffffff, 4);
    set_number(&zip, row + ROW_HEADER, 0xffffffff, 4);
    set_number(&zip, row + 30, added, 2);
    assert_int_equal(row + ROW_NAME + name, zip.end);
    forge_number(&zip, 1, 2);
    forge_number(&zip, 8 * fields, 2);
    if (fields > 0) forge_number(&zip, size, 8);
    if (fields > 1) forge_number(&zip, stored, 8);
    if (fields > 2) forge_number(&zip, header, 8);
    zip.end = zip.used;
    forge_bytes(&zip, tail, sizeof tail);
    set_number(&zip, zip.end + 12, zip.end - zip.entry[0], 4);
    return zip;
}

static void zip64_sizes_are_read_and_checked(void **state) {
    ForgedZip good = good_zip(), zip = wide_row(2, 2, good.local[3], 3);
    uint64_t header = good.local[3];
    free(good.bytes);
    assert_ok(open_zip(state, &zip));
    zip = wide_row(2, 2, header, 2);
    assert_error(open_zip(state, &zip), VL_FORMAT, "its ZIP64 field is too short");
    zip = wide_row(1ull << 63, 1ull << 63, header, 3);
    assert_error(open_zip(state, &zip), VL_FORMAT, "its 9223372036854775808 bytes at");
    zip = wide_row(2, 2, UINT64_MAX, 3);
    assert_error(open_zip(state, &zip), VL_FORMAT, "at 18446744073709551615 lie outside the file");
    zip = wide_row(2, 3, header, 3);
    assert_error(open_zip(state, &zip), VL_FORMAT, "in another size than its own");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_executed),         cmocka_unit_test(damaged_pickles_are_refused),
        cmocka_unit_test(bombs_do_not_go_off),         cmocka_unit_test(false_tensors_are_refused),
        cmocka_unit_test(false_old_files_are_refused), cmocka_unit_test(false_records_are_refused),
        cmocka_unit_test(false_names_are_refused),     cmocka_unit_test(false_ends_are_refused),
        cmocka_unit_test(zip64_is_read_and_checked),   cmocka_unit_test(zip64_sizes_are_read_and_checked),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
