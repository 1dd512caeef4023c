// From a configuration to what `vl2 pack` does: each source's annotations become its shards.
#ifndef VL_TRAIN_PACK_SOURCES_H
#define VL_TRAIN_PACK_SOURCES_H

#include "train/config.h"

// Packs all sources of the configuration; complete ones are left as they are. Not collective.
VlStatus vl_pack_sources(const VlConfig *config);
// Packs the held-out annotations into `shards`.
VlStatus vl_pack_heldout(const VlConfig *config, const char *shards);

#endif
