// Token ids to text, one id at a time, for answers that are read while they are made. The pieces put together are what
// vl_tokenizer_decode gives for all ids at once, whatever the ids; every piece is UTF-8 and is final.
//
// A piece is held back for as long as an id to come could change it: a character whose bytes are not all there, a run
// of byte-fallback tokens until it ends (one wrong byte at its end turns the whole run into U+FFFD), the beginning of
// what a decoder's Replace looks for. Usually that is no id or one.
#ifndef VL_DATA_TOKEN_STREAM_H
#define VL_DATA_TOKEN_STREAM_H

#include "data/text.h"
#include "data/tokenizer.h"

typedef struct VlTokenStream VlTokenStream;

// The tokenizer outlives the stream; the owner closes it with vl_token_stream_close. Special tokens are left out with
// `skip_special`. Errors: VL_OUT_OF_MEMORY.
VlStatus vl_token_stream_open(VlTokenStream **stream, const VlTokenizer *tokenizer, bool skip_special);

// Takes the next id. *piece = the text that is certain since the last call (often empty), valid until the next call.
// Errors, after which the stream can only be closed: VL_INVALID for an id below 0 or over 2^32 - 1; VL_OUT_OF_MEMORY.
VlStatus vl_token_stream_push(VlTokenStream *stream, int64_t id, VlSpan *piece);

// No id follows: *piece = the rest of the text. The stream can then only be closed.
VlStatus vl_token_stream_finish(VlTokenStream *stream, VlSpan *piece);

void vl_token_stream_close(VlTokenStream *stream);

#endif
