// `vl2 probe tokenize`, `detokenize` and `prompt`: JSON lines on standard input, one answer a line on standard output.
#ifndef VL_CLI_PROBE_TEXT_H
#define VL_CLI_PROBE_TEXT_H

#include "base/status.h"

// The arguments are those behind the probe's name. A line that cannot be done is answered with {"error": ..} and makes
// the command end with VL_INVALID; a wrong argument or a line that is no JSON object ends it at once with VL_USAGE.
//   tokenize --model DIR                            {"text", "special"} -> {"ids"}
//   detokenize --model DIR                          {"ids", "skip_special"} -> {"text"}
//   prompt --model DIR --mode MODE --protocol NAME  a sample, as vl_conversation_from_json reads it -> {"input_ids",
//   "labels"}
VlStatus vl_probe_tokenize(int argc, char **argv);
VlStatus vl_probe_detokenize(int argc, char **argv);
VlStatus vl_probe_prompt(int argc, char **argv);

#endif
