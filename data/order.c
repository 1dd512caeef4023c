#include "data/order.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/random.h"

enum { MODALITIES = VL_ORDER_MODALITIES, PATTERN_MOST = 256, SOURCES_MOST = 256 };

static const int64_t samples_most = (int64_t)1 << 46;

// The samples of one source that take part in a stream.
typedef struct Part {
    int64_t source;
    int64_t size;    // samples
    int64_t share;   // of them in one pass: round(size * weight)
    int64_t *index;  // [size] their numbers in the source; NULL: all of it
} Part;

// An endless sequence of samples: pass after pass over its parts.
typedef struct Stream {
    int64_t parts, samples;  // samples of one pass
    Part *part;
} Stream;

struct VlOrder {
    uint64_t seed;
    int64_t samples;
    int64_t pattern_length;  // 0: proportional, all in stream[0]
    uint8_t pattern[PATTERN_MOST];
    int64_t occurrences[MODALITIES];  // of a modality in the pattern
    Stream stream[MODALITIES];
};

static const char *const modality_names[MODALITIES] = {"text", "image", "video", "audio", "av (video with its sound)"};
static const char *const letters[MODALITIES] = {"t", "i", "v", "a", "av"};

// ---- Making ----------------------------------------------------------------

static VlStatus add_part(Stream *stream, int64_t source, int64_t size, double weight, int64_t *index) {
    double share = nearbyint((double)size * weight);
    if (!(share >= 1.0) || share > (double)samples_most) {
        vl_free(index);
        return vl_error(VL_INVALID, "source %lld: %lld samples times the weight %g are no samples at all or too many",
                        (long long)source, (long long)size, weight);
    }
    stream->part[stream->parts++] = (Part){source, size, (int64_t)share, index};
    stream->samples += (int64_t)share;
    return VL_OK;
}

static VlStatus add_modalities(VlOrder *order, int64_t number, const VlOrderSource *source) {
    int64_t count[MODALITIES] = {0};
    for (int64_t i = 0; i < source->samples; i++) {
        if (source->modality[i] >= MODALITIES)
            return vl_error(VL_INVALID, "source %lld: no modality", (long long)number);
        count[source->modality[i]]++;
    }
    for (int64_t m = 0; m < MODALITIES; m++) {
        int64_t *index, used = 0;
        if (!count[m]) continue;
        if (!order->occurrences[m]) {
            return vl_error(VL_INVALID,
                            "source %lld holds %lld %s samples, which the mix would never reach: name the modality in "
                            "data.mix, or use 'proportional'",
                            (long long)number, (long long)count[m], modality_names[m]);
        }
        VL_TRY(VL_NEW(&index, count[m]));
        for (int64_t i = 0; i < source->samples; i++) {
            if (source->modality[i] == m) index[used++] = i;
        }
        VL_TRY(add_part(&order->stream[m], number, count[m], source->weight, index));
    }
    return VL_OK;
}

static VlStatus parse_mix(VlOrder *order, const char *mix) {
    if (!strcmp(mix, "proportional")) return VL_OK;
    for (const char *c = mix;;) {
        size_t length = strcspn(c, ",");
        int64_t modality = 0;
        while (modality < MODALITIES &&
               (strlen(letters[modality]) != length || strncmp(letters[modality], c, length) != 0)) {
            modality++;
        }
        if (modality == MODALITIES || order->pattern_length == PATTERN_MOST) {
            return vl_error(VL_USAGE,
                            "data.mix '%s': it is 'proportional' or a list of at most %d of av (video with its sound), "
                            "a (audio), v (video), i (image), t (text) such as av,av,a,v",
                            mix, PATTERN_MOST);
        }
        order->pattern[order->pattern_length++] = (uint8_t)modality;
        order->occurrences[modality]++;
        if (!c[length]) return VL_OK;
        c += length + 1;
    }
}

static VlStatus fill(VlOrder *order, const VlOrderSource *sources, int64_t count, const char *mix) {
    VL_TRY(parse_mix(order, mix));
    for (int64_t m = 0; m < MODALITIES; m++) VL_TRY(VL_NEW(&order->stream[m].part, count));
    for (int64_t s = 0; s < count; s++) {
        if (sources[s].samples < 1 || sources[s].samples > samples_most || !(sources[s].weight > 0.0)) {
            return vl_error(VL_INVALID, "source %lld: %lld samples with weight %g: both must be above 0", (long long)s,
                            (long long)sources[s].samples, sources[s].weight);
        }
        if (order->pattern_length) {
            VL_TRY(add_modalities(order, s, &sources[s]));
        } else {
            VL_TRY(add_part(&order->stream[0], s, sources[s].samples, sources[s].weight, NULL));
        }
    }
    for (int64_t m = 0; m < MODALITIES; m++) {
        if (order->occurrences[m] && !order->stream[m].samples) {
            return vl_error(VL_INVALID, "data.mix '%s' asks for %s samples, but no source holds any", mix,
                            modality_names[m]);
        }
        order->samples += order->stream[m].samples;
    }
    return VL_OK;
}

VlStatus vl_order_create(VlOrder **out, const VlOrderSource *sources, int64_t count, const char *mix, uint64_t seed) {
    VlOrder *order;
    if (count < 1 || count > SOURCES_MOST) {
        return vl_error(VL_INVALID, "data.sources has %lld entries; 1 to %d are possible", (long long)count,
                        SOURCES_MOST);
    }
    VL_TRY(VL_NEW(&order, 1));
    order->seed = seed;
    VlStatus status = fill(order, sources, count, mix);
    if (status) {
        vl_order_free(order);
        return status;
    }
    *out = order;
    return VL_OK;
}

void vl_order_free(VlOrder *order) {
    if (!order) return;
    for (int64_t m = 0; m < MODALITIES; m++) {
        Stream *stream = &order->stream[m];
        for (int64_t i = 0; i < stream->parts; i++) vl_free(stream->part[i].index);
        vl_free(stream->part);
    }
    vl_free(order);
}

int64_t vl_order_samples(const VlOrder *order) { return order->samples; }

// ---- Looking up ------------------------------------------------------------

typedef unsigned __int128 Wide;

// How many of a part's samples stand before the time begin / samples: those j with (j + 1/2) / share below it.
static int64_t count_before(int64_t share, int64_t begin, int64_t samples) {
    Wide time = (Wide)2 * (Wide)begin * (Wide)share, half = (Wide)samples;
    return time <= half ? 0 : (int64_t)((time - half + 2 * half - 1) / (2 * half));
}

// Sample `place` of a pass is sample *rank of part *chosen. How many of each part stand before a time that is surely
// not too late is known in closed form, off by at most one half each; from there the few samples between are walked.
static void find_place(const Stream *stream, int64_t place, int64_t *chosen, int64_t *rank) {
    int64_t begin = place > stream->parts ? place - stream->parts : 0, passed = 0;
    int64_t next[SOURCES_MOST];  // the first sample of each part that is not passed
    for (int64_t i = 0; i < stream->parts; i++) {
        next[i] = count_before(stream->part[i].share, begin, stream->samples);
        passed += next[i];
    }
    for (;; passed++) {
        int64_t best = -1;
        for (int64_t i = 0; i < stream->parts; i++) {
            if (next[i] >= stream->part[i].share) continue;
            // (2 next + 1) / share is the sample's time; the quotients are compared without dividing.
            if (best < 0 || (Wide)(2 * next[i] + 1) * (Wide)stream->part[best].share <
                                (Wide)(2 * next[best] + 1) * (Wide)stream->part[i].share) {
                best = i;
            }
        }
        VL_ASSERT(best >= 0);
        if (passed == place) {
            *chosen = best;
            *rank = next[best];
            return;
        }
        next[best]++;
    }
}

// Element `number` (from 0, endless) of a stream.
static VlOrderPlace stream_at(const VlOrder *order, int64_t modality, int64_t number) {
    const Stream *stream = &order->stream[modality];
    int64_t pass = number / stream->samples, chosen = 0, rank = 0;
    find_place(stream, number % stream->samples, &chosen, &rank);
    const Part *part = &stream->part[chosen];
    int64_t taken = pass * part->share + rank;  // of this part, since the start of the run
    VlRandom random =
        vl_random(order->seed, vl_hash_string("order") + (uint64_t)(part->source * MODALITIES + modality));
    random.position = (uint64_t)(taken / part->size);
    int64_t index = vl_permute(taken % part->size, part->size, vl_random_u64(&random));
    return (VlOrderPlace){.source = part->source, .index = part->index ? part->index[index] : index};
}

VlOrderPlace vl_order_at(const VlOrder *order, int64_t position) {
    VL_ASSERT(position >= 0);
    int64_t modality = 0, number = position;
    if (order->pattern_length) {
        int64_t slot = position % order->pattern_length, before = 0;
        modality = order->pattern[slot];
        for (int64_t i = 0; i < slot; i++) before += order->pattern[i] == modality;
        number = position / order->pattern_length * order->occurrences[modality] + before;
    }
    VlOrderPlace place = stream_at(order, modality, number);
    place.epoch = position / order->samples;
    return place;
}
