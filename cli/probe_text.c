#include "cli/probe_text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/json.h"
#include "base/memory.h"
#include "cli/options.h"
#include "data/prompt.h"

typedef struct Probe {
    VlTokenizer *tokenizer;
    VlPromptRules rules;
} Probe;

// ---- Answers ---------------------------------------------------------------

static void print_ids(const VlTokenIds *list) {
    putchar('[');
    for (int64_t i = 0; i < list->count; i++) printf(i ? ",%lld" : "%lld", (long long)list->ids[i]);
    putchar(']');
}

// {"key": text} on a line; text that is not UTF-8 (an error text may be cut within a character) is made so.
static VlStatus print_text(const char *key, VlSpan text) {
    VlText clean = {0};
    VL_TRY(vl_text_append_lossy(&clean, text));
    json_t *answer = json_pack("{s:s%}", key, vl_text_span(&clean).data, (size_t)clean.length);
    char *line = answer ? json_dumps(answer, JSON_COMPACT) : NULL;
    json_decref(answer);
    vl_text_free(&clean);
    if (!line) return vl_error(VL_OUT_OF_MEMORY, "out of memory for an answer");
    puts(line);
    free(line);
    return VL_OK;
}

static VlStatus tokenize_line(const Probe *probe, const json_t *line) {
    bool special = false;
    const json_t *text = json_object_get(line, "text");
    if (!json_is_string(text)) return vl_error(VL_INVALID, "\"text\" must be a text");
    VL_TRY(vl_json_get_bool(line, "line", "special", false, &special));
    VlTokenIds ids = {0};
    VL_TRY(vl_tokenizer_encode(probe->tokenizer, json_string_value(text), (int64_t)json_string_length(text), special,
                               &ids));
    fputs("{\"ids\":", stdout);
    print_ids(&ids);
    puts("}");
    vl_token_ids_free(&ids);
    return VL_OK;
}

static VlStatus detokenize_line(const Probe *probe, const json_t *line) {
    const json_t *list = json_object_get(line, "ids");
    bool skip_special = false;
    if (!json_is_array(list)) return vl_error(VL_INVALID, "\"ids\" must be a list");
    VL_TRY(vl_json_get_bool(line, "line", "skip_special", false, &skip_special));
    VlTokenIds ids = {0};
    char *text = NULL;
    int64_t length = 0;
    VlStatus status = VL_OK;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *id = json_array_get(list, i);
        if (!json_is_integer(id)) {
            status = vl_error(VL_INVALID, "\"ids\" holds something that is no integer, at position %zu", i);
            goto done;
        }
        VL_TRY_GOTO(status, vl_token_ids_append(&ids, json_integer_value(id)), done);
    }
    VL_TRY_GOTO(status, vl_tokenizer_decode(probe->tokenizer, ids.ids, ids.count, skip_special, &text, &length), done);
    VL_TRY_GOTO(status, print_text("text", vl_span(text, length)), done);
done:
    vl_free(text);
    vl_token_ids_free(&ids);
    return status;
}

static VlStatus prompt_line(const Probe *probe, const json_t *line) {
    VlConversation conversation = {0};
    VlPrompt prompt = {0};
    VlStatus status;
    VL_TRY_GOTO(status, vl_conversation_from_json(&conversation, line, "sample"), done);
    VL_TRY_GOTO(status, vl_prompt_make(probe->tokenizer, &probe->rules, &conversation, &prompt), done);
    fputs("{\"input_ids\":", stdout);
    print_ids(&prompt.input_ids);
    fputs(",\"labels\":", stdout);
    print_ids(&prompt.labels);
    puts("}");
done:
    vl_prompt_free(&prompt);
    vl_conversation_free(&conversation);
    return status;
}

// ---- Lines -----------------------------------------------------------------

typedef VlStatus (*LineFunction)(const Probe *probe, const json_t *line);

static VlStatus answer_line(const Probe *probe, LineFunction answer, const char *text, int64_t size, int64_t number,
                            int64_t *failed) {
    json_error_t problem;
    json_t *line = json_loadb(text, (size_t)size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &problem);
    if (!json_is_object(line)) {
        VlStatus status = vl_error(VL_USAGE, "line %lld of the input is no JSON object: %s", (long long)number,
                                   line ? "another value" : problem.text);
        json_decref(line);
        return status;
    }
    VlStatus status = answer(probe, line);
    json_decref(line);
    if (status == VL_OK || status == VL_OUT_OF_MEMORY || status == VL_INTERNAL) return status;
    ++*failed;
    return print_text("error", vl_span_string(vl_error_text()));
}

static VlStatus answer_lines(const Probe *probe, LineFunction answer) {
    char *text = NULL;
    size_t room = 0;
    int64_t number = 0, failed = 0;
    ssize_t size;
    VlStatus status = VL_OK;
    while (!status && (size = getline(&text, &room, stdin)) >= 0) {
        status = answer_line(probe, answer, text, size, ++number, &failed);
    }
    free(text);
    if (!status && ferror(stdin)) status = vl_error(VL_IO, "standard input cannot be read: %s", strerror(errno));
    if (fflush(stdout) && !status) status = vl_error(VL_IO, "standard output cannot be written: %s", strerror(errno));
    if (!status && failed) {
        status = vl_error(VL_INVALID, "%lld of %lld lines could not be done", (long long)failed, (long long)number);
    }
    return status;
}

static VlStatus answer_with(Probe *probe, const char *model, LineFunction answer) {
    VL_TRY(vl_tokenizer_load(&probe->tokenizer, model));
    VlStatus status = answer_lines(probe, answer);
    vl_tokenizer_free(probe->tokenizer);
    return status;
}

// tokenize and detokenize differ in their lines only.
static VlStatus probe_tokens(const char *name, const char *about, LineFunction answer, int argc, char **argv) {
    const char *model = NULL;
    const VlOption options[] = {
        {"model", VL_OPTION_STRING, &model, "DIR", "folder with tokenizer.json and tokenizer_config.json", true}};
    const VlCommand command = {.name = name, .about = about, .options = 1, .option = options};
    bool help = false;
    VL_TRY(vl_options_parse(&command, argc, argv, NULL, &help));
    Probe probe = {0};
    return help ? VL_OK : answer_with(&probe, model, answer);
}

VlStatus vl_probe_tokenize(int argc, char **argv) {
    return probe_tokens("probe tokenize", "Lines {\"text\",\"special\"} on standard input give lines {\"ids\"}.",
                        tokenize_line, argc, argv);
}

VlStatus vl_probe_detokenize(int argc, char **argv) {
    return probe_tokens("probe detokenize", "Lines {\"ids\",\"skip_special\"} on standard input give lines {\"text\"}.",
                        detokenize_line, argc, argv);
}

VlStatus vl_probe_prompt(int argc, char **argv) {
    const char *model = NULL, *mode = NULL, *protocol = NULL;
    const VlOption options[] = {
        {"model", VL_OPTION_STRING, &model, "DIR", "folder with config.json, tokenizer.json, tokenizer_config.json",
         true},
        {"mode", VL_OPTION_STRING, &mode, "MODE", "train-plain, train-sft or infer", true},
        {"protocol", VL_OPTION_STRING, &protocol, "NAME", "vl2-main, vl2-av or vl2-2024-06", true}};
    const VlCommand command = {.name = "probe prompt",
                               .about = "Samples on standard input, one a line, give lines {\"input_ids\",\"labels\"}.",
                               .options = sizeof options / sizeof *options,
                               .option = options};
    bool help = false;
    Probe probe = {0};
    VL_TRY(vl_options_parse(&command, argc, argv, NULL, &help));
    if (help) return VL_OK;
    VL_TRY(vl_prompt_mode_parse(&probe.rules.mode, mode));
    VL_TRY(vl_protocol_parse(&probe.rules.protocol, protocol));
    VL_TRY(vl_prompt_family_load(&probe.rules.family, model));
    return answer_with(&probe, model, prompt_line);
}
