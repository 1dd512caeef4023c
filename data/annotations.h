// A list of annotations, read one at a time in bounded memory: a JSON list, JSON lines, or a table (a file whose name
// ends in .csv; data/csv.h).
//
// A table's first row names its columns, in any order:
//   video, image, audio  path of the medium, relative to the media folder. One of the cells is filled; none: text
//   sound                of a video: yes, it is seen and heard; no or empty, it is seen only
//   question             what is asked; may be left out with a medium (captions). Its tag, such as <video>, is put in
//                        front unless the question holds it
//   answer               what is to be said; needed
//   id, kind             optional; a sample without an id is called by its row ("row 7")
// Every other row is one sample with one question and one answer; rows with the same medium are samples of their own.
#ifndef VL_DATA_ANNOTATIONS_H
#define VL_DATA_ANNOTATIONS_H

#include <jansson.h>

#include "base/status.h"

typedef struct VlAnnotations VlAnnotations;

typedef struct VlAnnotation {
    json_t *object;  // LLaVA's form (data/conversation.h), the caller's to json_decref; NULL at the end of the list
    int64_t row;     // of the table, its first row being 1; 0: the list is no table
    int64_t offset, size;  // of its text in the file
    const char *problem;  // why a row is no sample (then `object` holds its id alone); NULL: it is one. Valid until the
                          // next call
} VlAnnotation;

// The owner closes it with vl_annotations_close. Errors: VL_IO; VL_FORMAT (for a table: a column that is unknown, given
// twice or missing).
VlStatus vl_annotations_open(VlAnnotations **annotations, const char *path);
// Errors: VL_IO; VL_FORMAT where the list itself is damaged, with the number of the element or row.
VlStatus vl_annotations_next(VlAnnotations *annotations, VlAnnotation *annotation);
void vl_annotations_close(VlAnnotations *annotations);

#endif
