// `vl2 probe frames`, `image` and `video`: the data side seen from outside, thin over data/.
#ifndef VL_CLI_PROBE_MEDIA_H
#define VL_CLI_PROBE_MEDIA_H

#include "base/status.h"

// argv holds the argc arguments after the probe's name. Errors: VL_USAGE for a wrong call; else what the data side
// says.

// Standard input: one JSON object a line, {"n", "fps", "s", "e", "num_frames", "kind"}; standard output: one line each,
// {"indices":[..]} or {"error":".."}. A line that cannot be done does not end the command, but its status is then
// VL_INVALID. A line that is no such object ends it with VL_USAGE.
VlStatus vl_probe_frames(int argc, char **argv);

// `--model DIR --aspect pad|none FILE... --output F`: a safetensors file with pixel_values.N f32 [3,h,w].
VlStatus vl_probe_image(int argc, char **argv);

// `--model DIR [--aspect pad|none] [--num-frames K] [--start S] [--end E] [--protocol P] FILE... --output F`: for file
// N frames.N u8 [T,H,W,3], indices.N i64 [T], pts.N f64 [T] (-1: an appended frame), count.N i64 [1], fps.N f64 [1] and
// pixel_values.N f32 [T,3,h,w].
VlStatus vl_probe_video(int argc, char **argv);

#endif
