// The parser of sub-command options.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "cli/options.h"

typedef struct Values {
    bool flag;
    const char *text;
    int64_t number;
    double rate;
    int64_t positional;
    bool help;
} Values;

static VlStatus parse(Values *values, int argc, char **argv) {
    const VlOption options[] = {
        {"verbose", VL_OPTION_FLAG, &values->flag, NULL, "say more", false},
        {"output", VL_OPTION_STRING, &values->text, "FILE", "where to", true},
        {"steps", VL_OPTION_INT64, &values->number, "N", "how many", false},
        {"rate", VL_OPTION_DOUBLE, &values->rate, "X", "how fast", false},
    };
    const VlCommand command = {.name = "make",
                               .about = "Makes.",
                               .positional = "CONFIG [key=value ...]",
                               .least = 1,
                               .most = 3,
                               .options = 4,
                               .option = options};
    return vl_options_parse(&command, argc, argv, &values->positional, &values->help);
}

#define PARSE(values, ...) \
    parse((values), (int)(sizeof((char *[]){__VA_ARGS__}) / sizeof(char *)), words = (char *[]){__VA_ARGS__})

static void test_values(void **state) {
    (void)state;
    char **words;
    Values values = {.number = 7};
    assert_int_equal(PARSE(&values, "a.yaml", "--verbose", "--output", "-x", "k=v", "--rate=-1e-3"), VL_OK);
    assert_true(values.flag && !values.help);
    assert_string_equal(values.text, "-x");
    assert_int_equal(values.number, 7);
    assert_true(values.rate == -1e-3);
    assert_int_equal(values.positional, 2);
    assert_string_equal(words[0], "a.yaml");
    assert_string_equal(words[1], "k=v");
    assert_int_equal(PARSE(&values, "--steps", "-12", "--output=", "--", "--verbose"), VL_OK);
    assert_int_equal(values.number, -12);
    assert_string_equal(values.text, "");
    assert_int_equal(values.positional, 1);
    assert_string_equal(words[0], "--verbose");
}

static void test_help(void **state) {
    (void)state;
    char **words;
    Values values = {0};
    assert_int_equal(PARSE(&values, "--help"), VL_OK);
    assert_true(values.help);
}

#define REFUSED(text, ...)                                                                             \
    do {                                                                                               \
        char **words;                                                                                  \
        Values values = {0};                                                                           \
        assert_int_equal(PARSE(&values, __VA_ARGS__), VL_USAGE);                                       \
        (void)words;                                                                                   \
        if (!strstr(vl_error_text(), text)) fail_msg("'%s' does not say '%s'", vl_error_text(), text); \
    } while (0)

static void test_refused(void **state) {
    (void)state;
    REFUSED("unknown option '--ouput'; nearest: --output", "--ouput", "x");
    REFUSED("unknown option '-v'", "-v");
    REFUSED("--output needs a value", "a", "--output");
    REFUSED("--output is given twice", "a", "--output", "x", "--output", "y");
    REFUSED("--output FILE is missing", "a");
    REFUSED("--verbose takes no value", "a", "--verbose=1");
    REFUSED("--steps needs an integer, not '3x'", "a", "--steps", "3x");
    REFUSED("--steps needs an integer, not ''", "a", "--steps=");
    REFUSED("--steps needs an integer, not '99999999999999999999'", "a", "--steps", "99999999999999999999");
    REFUSED("--rate needs a number, not 'inf'", "a", "--rate", "inf");
    REFUSED("usage is vl2 make CONFIG", "--output", "x");
    REFUSED("'d' is one argument too many", "a", "b", "c", "d", "--output", "x");
}

static void test_choice(void **state) {
    (void)state;
    static const char *const choices[] = {"f32", "bf16"};
    int64_t choice = -1;
    assert_int_equal(vl_option_choice("dtype", "bf16", choices, 2, &choice), VL_OK);
    assert_int_equal(choice, 1);
    assert_int_equal(vl_option_choice("dtype", "bf61", choices, 2, &choice), VL_USAGE);
    assert_non_null(strstr(vl_error_text(), "possible are: f32, bf16; nearest: bf16"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_choice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
