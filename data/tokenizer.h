// Text to token ids and back, from the tokenizer.json and tokenizer_config.json of a model folder. Two families of byte
// pair encoding: over bytes (Qwen2) and over characters with byte fallback (Mistral, Llama style).
//
// What the files may hold, everything else is refused by name (VL_UNSUPPORTED):
//   normalizer     null, NFC, Prepend, Replace (of a string), Sequence of these
//   pre_tokenizer  null, Split (by a regular expression, isolated), ByteLevel (no regex, no prefix space), Sequence
//   model          BPE without dropout, prefix and suffix
//   post_processor null, ByteLevel, TemplateProcessing (of one sequence), Sequence
//   decoder        ByteLevel, or a Sequence of Replace, ByteFallback, Fuse, Strip; ByteFallback not behind a Fuse
// `truncation` and `padding` have no effect, as in the reference, which sets both itself at every call.
#ifndef VL_DATA_TOKENIZER_H
#define VL_DATA_TOKENIZER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "data/token_ids.h"

// Immutable once loaded: any number of threads may encode and decode with it at the same time.
typedef struct VlTokenizer VlTokenizer;

// Loads folder/tokenizer.json and folder/tokenizer_config.json; the owner releases it with vl_tokenizer_free.
// Errors: VL_IO; VL_FORMAT for damaged files (merges of unknown tokens, ids twice or out of range, wrong types);
// VL_UNSUPPORTED for components outside the list above.
VlStatus vl_tokenizer_load(VlTokenizer **tokenizer, const char *folder);
void vl_tokenizer_free(VlTokenizer *tokenizer);

// Appends the ids of `length` bytes of UTF-8 text to *out. The text of an added token ("</s>") becomes that token. With
// `special`, what the post-processor adds (a BOS, say) is added as well. O(n log n) in the length.
// Errors leave *out as it was: VL_INVALID for text that is not UTF-8 or holds a character that no token covers.
VlStatus vl_tokenizer_encode(const VlTokenizer *tokenizer, const char *text, int64_t length, bool special,
                             VlTokenIds *out);

// The text of `count` ids in *text (*length bytes, a zero byte follows), owned by the caller (vl_free). Bytes that are
// no UTF-8 become U+FFFD as in the reference. Special tokens are left out with `skip_special`. An id that has no token
// (a model's vocabulary may be padded) stands for no text, as in the reference. Errors: VL_INVALID for ids below 0 or
// over 2^32 - 1.
VlStatus vl_tokenizer_decode(const VlTokenizer *tokenizer, const int64_t *ids, int64_t count, bool skip_special,
                             char **text, int64_t *length);

int64_t vl_tokenizer_count(const VlTokenizer *tokenizer);                    // the highest id + 1
int64_t vl_tokenizer_find(const VlTokenizer *tokenizer, const char *token);  // its id; -1 when there is no such token
// The token's own text ("\u0120dog", "<0x0A>"), with its length in bytes; NULL when no token has this id.
const char *vl_tokenizer_token(const VlTokenizer *tokenizer, int64_t id, int64_t *length);
bool vl_tokenizer_is_special(const VlTokenizer *tokenizer, int64_t id);

// Ids of the tokens that tokenizer_config.json names; -1 when it names none.
int64_t vl_tokenizer_bos(const VlTokenizer *tokenizer);
int64_t vl_tokenizer_eos(const VlTokenizer *tokenizer);
int64_t vl_tokenizer_pad(const VlTokenizer *tokenizer);
int64_t vl_tokenizer_unk(const VlTokenizer *tokenizer);
// The text of tokenizer_config.json's `chat_template`; NULL when it has none. Belongs to the tokenizer.
const char *vl_tokenizer_chat_template(const VlTokenizer *tokenizer);

#endif
