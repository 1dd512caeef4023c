// What the preprocessing of sounds and the audio tower agree on.
#ifndef VL_BASE_SOUND_H
#define VL_BASE_SOUND_H

enum { VL_FBANK_BINS = 128 };  // values of a row of a filter bank: mel filters from 20 Hz to 8 kHz

#endif
