// `vl2 probe audio`: a sound as the audio tower sees it, thin over data/audio.h.
#ifndef VL_CLI_PROBE_AUDIO_H
#define VL_CLI_PROBE_AUDIO_H

#include "base/status.h"

// `[--from file|video] [--window-start K] FILE... --output F`: a safetensors file with fbank.N f32 [2998,128] for file
// N. Errors: VL_USAGE for a wrong call; else what the data side says.
VlStatus vl_probe_audio(int argc, char **argv);

#endif
