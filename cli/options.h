// The command line of a sub-command: one table of options, read by the parser and by --help.
#ifndef VL_CLI_OPTIONS_H
#define VL_CLI_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

typedef enum VlOptionKind {
    VL_OPTION_FLAG,    // --name: target is a bool, set to true
    VL_OPTION_STRING,  // --name TEXT or --name=TEXT: target is a const char *, pointing into argv
    VL_OPTION_INT64,   // target is an int64_t
    VL_OPTION_DOUBLE   // target is a double; finite
} VlOptionKind;

typedef struct VlOption {
    const char *name;  // without the dashes
    VlOptionKind kind;
    void *target;       // holds the default; written when the option is given
    const char *value;  // what --help calls the value ("DIR"); NULL for a flag
    const char *help;
    bool required;
} VlOption;

typedef struct VlCommand {
    const char *name;        // "parity"
    const char *about;       // one or two sentences for --help
    const char *positional;  // what --help shows after the name: "CONFIG [key=value ...]"; NULL when there is nothing
    int64_t least, most;     // how many positional arguments
    int64_t options;
    const VlOption *option;
} VlCommand;

// Reads argc words (without program and sub-command name). Positional arguments are moved to the front of argv and
// counted in *positional (may be NULL when there are none); everything after a word "--" is positional. --help or -h
// prints the help to standard output and sets *help: the command then returns VL_OK at once. Errors: VL_USAGE with the
// nearest option's name.
VlStatus vl_options_parse(const VlCommand *command, int argc, char **argv, int64_t *positional, bool *help);

// A word that must be one of `count` choices; its number in *choice. Errors: VL_USAGE naming the option and the nearest
// choice.
VlStatus vl_option_choice(const char *option, const char *word, const char *const *choices, int64_t count,
                          int64_t *choice);

#endif
