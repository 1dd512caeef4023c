// The two numbers of a Matroska or WebM file that tell whether it was cut.
#ifndef VL_DATA_MEDIA_EBML_H
#define VL_DATA_MEDIA_EBML_H

#include "base/status.h"

// VL_FORMAT when the file is shorter than the segment that its header announces. A segment of unknown size (a live
// recording) passes, as does what is no such file. EBML: RFC 8794, sections 4 to 6.
VlStatus vl_ebml_check_complete(const char *path);

#endif
