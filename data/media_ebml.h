// The frame of a Matroska or WebM file: elements inside elements, each with its length.
#ifndef VL_DATA_MEDIA_EBML_H
#define VL_DATA_MEDIA_EBML_H

#include "base/files.h"

// VL_FORMAT when the file is shorter than the segment or an element in it announces, or when the elements of the
// segment or of its clusters do not follow one another without a gap (FFmpeg jumps over such a place in silence), or
// when a cluster's checksum does not match. What is no such file passes. EBML: RFC 8794, sections 4 to 6; Matroska: RFC
// 9559, section 5.
VlStatus vl_ebml_check_complete(const VlReader *file);

#endif
