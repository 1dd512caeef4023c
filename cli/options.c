#include "cli/options.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_OPTIONS = 64 };

static void print_help(const VlCommand *command) {
    enum { COLUMN = 26 };
    printf("usage: vl2 %s", command->name);
    if (command->positional) printf(" %s", command->positional);
    for (int64_t i = 0; i < command->options; i++) {
        const VlOption *option = &command->option[i];
        if (option->required) printf(" --%s %s", option->name, option->value);
    }
    printf(" [options]\n\n%s\n\noptions:\n", command->about);
    for (int64_t i = 0; i < command->options; i++) {
        const VlOption *option = &command->option[i];
        int width = printf("  --%s%s%s", option->name, option->value ? " " : "", option->value ? option->value : "");
        if (width >= COLUMN) width = printf("\n") - 1;
        printf("%*s%s\n", COLUMN - width, "", option->help);
    }
    printf("%-*s%s\n", COLUMN, "  --help", "this text");
}

static VlStatus unknown_option(const VlCommand *command, const char *word) {
    const char *names[MOST_OPTIONS + 1];
    for (int64_t i = 0; i < command->options; i++) names[i] = command->option[i].name;
    names[command->options] = "help";
    const char *bare = word + strspn(word, "-");
    const char *nearest = vl_nearest_word(bare, names, command->options + 1);
    return vl_error(VL_USAGE, "vl2 %s: unknown option '%s'%s%s; see vl2 %s --help", command->name, word,
                    nearest ? "; nearest: --" : "", nearest ? nearest : "", command->name);
}

static VlStatus set_value(const VlCommand *command, const VlOption *option, const char *text) {
    char *end;
    errno = 0;
    if (option->kind == VL_OPTION_STRING) {
        *(const char **)option->target = text;
        return VL_OK;
    }
    if (option->kind == VL_OPTION_INT64) {
        long long value = strtoll(text, &end, 10);
        if (errno || end == text || *end) {
            return vl_error(VL_USAGE, "vl2 %s: --%s needs an integer, not '%s'", command->name, option->name, text);
        }
        *(int64_t *)option->target = value;
        return VL_OK;
    }
    double value = strtod(text, &end);
    if (errno || end == text || *end || !isfinite(value)) {
        return vl_error(VL_USAGE, "vl2 %s: --%s needs a number, not '%s'", command->name, option->name, text);
    }
    *(double *)option->target = value;
    return VL_OK;
}

// The option of a word "--name" or "--name=value", or NULL; *value = what follows '=', or NULL.
static const VlOption *find_option(const VlCommand *command, const char *word, int64_t *number, const char **value) {
    const char *name = word + 2, *equals = strchr(name, '=');
    size_t length = equals ? (size_t)(equals - name) : strlen(name);
    *value = equals ? equals + 1 : NULL;
    for (int64_t i = 0; i < command->options; i++) {
        const VlOption *option = &command->option[i];
        if (strlen(option->name) == length && strncmp(option->name, name, length) == 0) {
            *number = i;
            return option;
        }
    }
    return NULL;
}

// Reads the option at argv[*next] and its value, and moves *next past them.
static VlStatus read_option(const VlCommand *command, int argc, char **argv, int *next, bool *given) {
    const char *word = argv[*next], *value;
    int64_t number;
    const VlOption *option = strncmp(word, "--", 2) == 0 ? find_option(command, word, &number, &value) : NULL;
    if (!option) return unknown_option(command, word);
    if (given[number]) {
        return vl_error(VL_USAGE, "vl2 %s: --%s is given twice", command->name, option->name);
    }
    given[number] = true;
    ++*next;
    if (option->kind == VL_OPTION_FLAG) {
        if (value) return vl_error(VL_USAGE, "vl2 %s: --%s takes no value", command->name, option->name);
        *(bool *)option->target = true;
        return VL_OK;
    }
    if (!value) {
        if (*next >= argc) {
            return vl_error(VL_USAGE, "vl2 %s: --%s needs a value: --%s %s", command->name, option->name, option->name,
                            option->value);
        }
        value = argv[(*next)++];
    }
    return set_value(command, option, value);
}

VlStatus vl_options_parse(const VlCommand *command, int argc, char **argv, int64_t *positional, bool *help) {
    VL_ASSERT(command->options <= MOST_OPTIONS);
    bool given[MOST_OPTIONS] = {false}, only_positional = false;
    int64_t count = 0;
    *help = false;
    for (int next = 0; next < argc;) {
        char *word = argv[next];
        if (only_positional || word[0] != '-' || !word[1]) {
            argv[count++] = word;
            next++;
        } else if (strcmp(word, "--") == 0) {
            only_positional = true;
            next++;
        } else if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
            print_help(command);
            *help = true;
            return VL_OK;
        } else {
            VL_TRY(read_option(command, argc, argv, &next, given));
        }
    }
    if (count < command->least) {
        return vl_error(VL_USAGE, "vl2 %s: usage is vl2 %s %s; see vl2 %s --help", command->name, command->name,
                        command->positional, command->name);
    }
    if (count > command->most) {
        return vl_error(VL_USAGE, "vl2 %s: '%s' is one argument too many; see vl2 %s --help", command->name,
                        argv[command->most], command->name);
    }
    for (int64_t i = 0; i < command->options; i++) {
        const VlOption *option = &command->option[i];
        if (option->required && !given[i]) {
            return vl_error(VL_USAGE, "vl2 %s: --%s %s is missing; see vl2 %s --help", command->name, option->name,
                            option->value, command->name);
        }
    }
    if (positional) *positional = count;
    return VL_OK;
}

VlStatus vl_option_choice(const char *option, const char *word, const char *const *choices, int64_t count,
                          int64_t *choice) {
    for (int64_t i = 0; i < count; i++) {
        if (strcmp(word, choices[i]) == 0) {
            *choice = i;
            return VL_OK;
        }
    }
    char list[256] = "";
    for (int64_t i = 0; i < count; i++) {
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", choices[i]);
    }
    const char *nearest = vl_nearest_word(word, choices, count);
    return vl_error(VL_USAGE, "--%s is '%s', possible are: %s%s%s", option, word, list, nearest ? "; nearest: " : "",
                    nearest ? nearest : "");
}
