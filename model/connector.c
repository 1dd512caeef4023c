#include "model/connector.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"

#define PREFIX "model.mm_projector"

// Bytes of gathered blocks that one product of the sampler takes at most (at least one visual): bounds the scratch
// memory.
static const int64_t sampler_bytes = (int64_t)64 << 20;

static int64_t sampled_extent(int64_t extent, int64_t padding, int64_t kernel) {
    int64_t room = extent + 2 * padding - kernel;
    return room < 0 ? 0 : room / kernel + 1;
}

int64_t vl_connector_tokens(const VlConnectorConfig *config, int64_t frames, int64_t side) {
    if (config->kind == VL_CONNECTOR_MLP) return side * side;
    return sampled_extent(frames, config->padding, config->kt) * sampled_extent(side, config->padding, config->kh) *
           sampled_extent(side, config->padding, config->kw);
}

static VlStatus plan_readout(VlParams *params, VlConnector *connector, int64_t input, int64_t output) {
    const char *single[] = {PREFIX}, *mlp[] = {PREFIX ".0", PREFIX ".2"};
    const char *readout[] = {PREFIX ".readout.0", PREFIX ".readout.2"};
    const char *const *names = connector->config.kind != VL_CONNECTOR_MLP ? readout
                               : connector->readout_layers == 1           ? single
                                                                          : mlp;
    for (int64_t i = 0; i < connector->readout_layers; i++) {
        int64_t from = i == 0 ? input : output;
        VL_TRY(vl_linear_layer_plan(params, &connector->readout[i], names[i], VL_GROUP_CONNECTOR,
                                    vl_linear_default_init(from), output, from, true));
    }
    return VL_OK;
}

VlStatus vl_connector_plan(VlParams *params, VlConnector *connector, const VlConnectorConfig *config) {
    *connector = (VlConnector){.config = *config, .readout_layers = 2};
    int64_t channels = config->output;
    if (config->kind == VL_CONNECTOR_MLP) {
        connector->readout_layers = config->depth;
        VL_ASSERT(config->depth >= 1 && config->depth <= 2);
        VL_TRY(plan_readout(params, connector, config->input, config->output));
        return VL_OK;
    }
    VL_ASSERT(config->depth > 0 || config->input == channels);
    VL_TRY(vl_regstage_plan(params, &connector->s1, PREFIX ".s1", VL_GROUP_CONNECTOR, config->depth, config->input,
                            channels));
    if (config->kind == VL_CONNECTOR_STC || config->kind == VL_CONNECTOR_SPATIAL_CONV) {
        int64_t extents[] = {channels, channels, config->kt, config->kh, config->kw};
        VL_TRY(vl_linear_layer_plan_convolution(params, &connector->sampler, PREFIX ".sampler.0", VL_GROUP_CONNECTOR,
                                                vl_linear_default_init(channels * config->kt * config->kh * config->kw),
                                                5, extents, true));
    }
    VL_TRY(
        vl_regstage_plan(params, &connector->s2, PREFIX ".s2", VL_GROUP_CONNECTOR, config->depth, channels, channels));
    VL_TRY(plan_readout(params, connector, channels, channels));
    return VL_OK;
}

void vl_connector_free(VlConnector *connector) {
    vl_free(connector->index);
    *connector = (VlConnector){0};
}

// Consecutive visuals of equal frames and repeats that go through the sampler together.
typedef struct Run {
    int64_t first, count;    // visuals
    int64_t stored, repeat;  // frames of each, and what each frame stands for
    int64_t frame;           // the first stored frame
    int64_t token, tokens;   // the first token; tokens of each
} Run;

static bool next_run(const VlConnector *connector, Run *run, int64_t width, int64_t element) {
    const VlVisual *visual = connector->saved.visual;
    run->token += run->count * run->tokens;
    run->first += run->count;
    run->count = 0;
    if (run->first >= connector->saved.visuals) return false;
    const VlVisual *first = &visual[run->first];
    run->stored = first->frames;
    run->repeat = first->repeat;
    run->frame = first->first_frame;
    run->tokens = vl_connector_tokens(&connector->config, run->stored * run->repeat, connector->saved.side);
    int64_t most = sampler_bytes / (run->tokens * width * element);
    do {
        run->count++;
    } while (run->count < most && run->first + run->count < connector->saved.visuals &&
             visual[run->first + run->count].frames == run->stored &&
             visual[run->first + run->count].repeat == run->repeat);
    return true;
}

// Elements of one gathered block: what a token of the sampler is made of.
static int64_t block_width(const VlConnectorConfig *config) {
    return config->kt * config->kh * config->kw * config->output;
}

static VlStatus check_visuals(const VlConnector *connector, VlTensor features, int64_t visuals, const VlVisual *visual,
                              int64_t side, int64_t *tokens) {
    int64_t frame = 0;
    *tokens = 0;
    for (int64_t i = 0; i < visuals; i++) {
        if (visual[i].first_frame != frame || visual[i].frames < 1 || visual[i].repeat < 1) {
            return vl_error(VL_INVALID,
                            "visual %lld: frames [%lld, +%lld) repeated %lld times, after %lld frames before it",
                            (long long)i, (long long)visual[i].first_frame, (long long)visual[i].frames,
                            (long long)visual[i].repeat, (long long)frame);
        }
        frame += visual[i].frames;
        int64_t count = vl_connector_tokens(&connector->config, visual[i].frames * visual[i].repeat, side);
        if (count == 0) {
            return vl_error(VL_INVALID, "visual %lld: %lld frames of %lldx%lld patches give no token; give more frames",
                            (long long)i, (long long)(visual[i].frames * visual[i].repeat), (long long)side,
                            (long long)side);
        }
        *tokens += count;
    }
    if (frame != features.dim[0]) {
        return vl_error(VL_INVALID, "the visuals have %lld frames, the vision features are %s", (long long)frame,
                        vl_describe(features));
    }
    return VL_OK;
}

// The frames of a run as [count,T,h,w,C]: a view where nothing is repeated, else gathered onto scratch. *index is the
// device index of the gathering, empty for a view.
static VlStatus gather_frames(VlContext *context, VlConnector *connector, const Run *run, VlTensor per_frame, bool push,
                              VlTensor *x, VlTensor *index) {
    int64_t stored = run->count * run->stored, frames = stored * run->repeat;
    int64_t h = per_frame.dim[1], w = per_frame.dim[2], channels = per_frame.dim[3];
    VlTensor from = vl_rows(per_frame, run->frame, stored);
    *index = VL_EMPTY;
    if (run->repeat == 1) {
        *x = vl_reshape(from, run->count, run->stored, h, w, channels);
        return VL_OK;
    }
    VL_TRY(vl_reserve(&connector->index, &connector->index_capacity, frames, (int64_t)sizeof *connector->index));
    for (int64_t i = 0; i < frames; i++) connector->index[i] = i / run->repeat;
    VL_TRY(vl_arena_push(&context->scratch, index, VL_I64, frames));
    VL_TRY(vl_copy_from_host(context, *index, connector->index));
    VL_TRY(vl_arena_push(&context->scratch, x, per_frame.dtype, run->count, run->stored * run->repeat, h, w, channels));
    if (push) {
        VL_TRY(vl_gather_rows_forward(context, vl_reshape(*x, frames, h * w * channels),
                                      vl_reshape(from, stored, h * w * channels), *index));
    }
    return VL_OK;
}

// The sampler's input or its gradient as [count,t',h',w',C], for average pooling.
static VlTensor pooled_view(const VlConnector *connector, const Run *run, VlTensor rows) {
    const VlConnectorConfig *config = &connector->config;
    int64_t h = connector->saved.side / config->kh, w = connector->saved.side / config->kw;
    return vl_reshape(rows, run->count, run->stored * run->repeat / config->kt, h, w, config->output);
}

static VlStatus push_columns(VlContext *context, const VlConnector *connector, const Run *run, VlTensor x,
                             VlTensor *columns) {
    const VlConnectorConfig *config = &connector->config;
    VL_TRY(vl_arena_push(&context->scratch, columns, x.dtype, run->count * run->tokens, block_width(config)));
    VL_TRY(vl_unfold3d_forward(context, *columns, x, config->kt, config->kh, config->kw, config->padding));
    return VL_OK;
}

// sampled[tokens,C] before SiLU, from per_frame[frames,h,w,C].
static VlStatus sampler_forward(VlContext *context, VlConnector *connector, VlTensor sampled, VlTensor per_frame) {
    const VlConnectorConfig *config = &connector->config;
    int64_t mark = vl_arena_mark(&context->scratch);
    Run run = {0};
    while (next_run(connector, &run, block_width(config), vl_dtype_size(per_frame.dtype))) {
        VlTensor x, index, columns, rows = vl_rows(sampled, run.token, run.count * run.tokens);
        VL_TRY(gather_frames(context, connector, &run, per_frame, true, &x, &index));
        if (connector->sampler.weight) {
            VL_TRY(push_columns(context, connector, &run, x, &columns));
            VL_TRY(vl_linear_layer_forward(context, &connector->sampler, rows, columns, VL_WRITE));
        } else {
            VL_TRY(vl_average_pool3d_forward(context, pooled_view(connector, &run, rows), x, config->kt, config->kh,
                                             config->kw));
        }
        vl_arena_release(&context->scratch, mark);
    }
    return VL_OK;
}

// Gradients of the sampler's parameters, and dper_frame[frames,h,w,C] (empty: not wanted), from dsampled[tokens,C].
static VlStatus sampler_backward(VlContext *context, VlConnector *connector, VlTensor dper_frame, VlTensor dsampled) {
    const VlConnectorConfig *config = &connector->config;
    int64_t mark = vl_arena_mark(&context->scratch);
    bool wanted = !vl_is_empty(dper_frame);
    Run run = {0};
    while (next_run(connector, &run, block_width(config), vl_dtype_size(dsampled.dtype))) {
        VlTensor rows = vl_rows(dsampled, run.token, run.count * run.tokens);
        VlTensor x, dx = VL_EMPTY, index = VL_EMPTY, columns, dcolumns = VL_EMPTY;
        if (wanted) VL_TRY(gather_frames(context, connector, &run, dper_frame, false, &dx, &index));
        if (connector->sampler.weight) {
            VL_TRY(gather_frames(context, connector, &run, connector->saved.per_frame, true, &x, &index));
            VL_TRY(push_columns(context, connector, &run, x, &columns));
            if (wanted) VL_TRY(vl_arena_push_make(&context->scratch, &dcolumns, columns.dtype, 2, columns.dim));
            VL_TRY(vl_linear_layer_backward(context, &connector->sampler, dcolumns, rows, columns, VL_WRITE));
            if (wanted) {
                VL_TRY(
                    vl_unfold3d_backward(context, dx, dcolumns, config->kt, config->kh, config->kw, config->padding));
            }
        } else if (wanted) {
            VL_TRY(vl_average_pool3d_backward(context, dx, pooled_view(connector, &run, rows), config->kt, config->kh,
                                              config->kw));
        }
        if (wanted && run.repeat > 1) {
            int64_t stored = run.count * run.stored, size = vl_elements(dx) / (stored * run.repeat);
            VL_TRY(vl_gather_rows_backward(context, vl_reshape(vl_rows(dper_frame, run.frame, stored), stored, size),
                                           vl_reshape(dx, stored * run.repeat, size), index));
        }
        vl_arena_release(&context->scratch, mark);
    }
    return VL_OK;
}

// merged[tokens,D] = the mean over each visual's frames. Backward: the features' gradient from that of merged.
static VlStatus mean_frames(VlContext *context, const VlConnector *connector, VlTensor merged, VlTensor features,
                            bool backward) {
    int64_t size = features.dim[1] * features.dim[2];
    Run run = {0};
    while (next_run(connector, &run, features.dim[2], vl_dtype_size(features.dtype))) {
        VlTensor mean = vl_reshape(vl_rows(merged, run.token, run.count * run.tokens), run.count, size);
        VlTensor all = vl_reshape(vl_rows(features, run.frame, run.count * run.stored), run.count, run.stored, size);
        if (backward) {
            VL_TRY(vl_mean_rows_backward(context, all, mean, VL_WRITE));
        } else {
            VL_TRY(vl_mean_rows_forward(context, mean, all));
        }
    }
    return VL_OK;
}

// Frames after the sampler as [frames,h',w',C], for s2.
static VlTensor sampled_frames(const VlConnector *connector, VlTensor rows) {
    const VlConnectorConfig *config = &connector->config;
    int64_t h = sampled_extent(connector->saved.side, config->padding, config->kh);
    int64_t w = sampled_extent(connector->saved.side, config->padding, config->kw);
    return vl_reshape(rows, rows.dim[0] / (h * w), h, w, rows.dim[1]);
}

// *merged: s1, sampler, SiLU and s2, or the mean over the frames.
static VlStatus merge_forward(VlContext *context, VlConnector *connector, VlTensor features, int64_t tokens, bool keep,
                              VlTensor *merged) {
    const VlConnectorConfig *config = &connector->config;
    VlArena *arena = keep ? &context->activations : &context->scratch;
    int64_t side = connector->saved.side;
    if (config->kind == VL_CONNECTOR_MLP) {
        VL_TRY(vl_arena_push(arena, merged, features.dtype, tokens, config->input));
        VL_TRY(mean_frames(context, connector, *merged, features, false));
        return VL_OK;
    }
    VlTensor frames = vl_reshape(features, features.dim[0], side, side, config->input), per_frame, sampled, active;
    VL_TRY(vl_regstage_forward(context, &connector->s1, &per_frame, frames, keep));
    VL_TRY(vl_arena_push(arena, &sampled, features.dtype, tokens, config->output));
    VL_TRY(sampler_forward(context, connector, sampled, per_frame));
    active = sampled;
    if (keep) VL_TRY(vl_arena_push(arena, &active, features.dtype, tokens, config->output));
    VL_TRY(vl_activation_forward(context, active, sampled, VL_SILU));
    VlTensor out;
    VL_TRY(vl_regstage_forward(context, &connector->s2, &out, sampled_frames(connector, active), keep));
    *merged = vl_reshape(out, tokens, config->output);
    connector->saved.per_frame = per_frame;
    connector->saved.sampled = sampled;
    return VL_OK;
}

static VlStatus readout_forward(VlContext *context, VlConnector *connector, VlTensor tokens, VlTensor merged,
                                bool keep) {
    VlTensor first = tokens, active;
    if (connector->readout_layers > 1) {
        VlArena *arena = keep ? &context->activations : &context->scratch;
        VL_TRY(vl_arena_push_make(arena, &first, tokens.dtype, tokens.dims, tokens.dim));
    }
    VL_TRY(vl_linear_layer_forward(context, &connector->readout[0], first, merged, VL_WRITE));
    if (connector->readout_layers == 1) return VL_OK;
    active = first;
    if (keep) VL_TRY(vl_arena_push_make(&context->scratch, &active, tokens.dtype, tokens.dims, tokens.dim));
    VL_TRY(vl_activation_forward(context, active, first, VL_GELU_ERF));
    VL_TRY(vl_linear_layer_forward(context, &connector->readout[1], tokens, active, VL_WRITE));
    connector->saved.hidden = first;
    return VL_OK;
}

static VlStatus readout_backward(VlContext *context, VlConnector *connector, VlTensor dmerged, VlTensor dtokens) {
    VlTensor d = dtokens, active;
    if (connector->readout_layers > 1) {
        VlTensor hidden = connector->saved.hidden;
        VL_TRY(vl_arena_push_make(&context->scratch, &active, hidden.dtype, hidden.dims, hidden.dim));
        VL_TRY(vl_arena_push_make(&context->scratch, &d, hidden.dtype, hidden.dims, hidden.dim));
        VL_TRY(vl_activation_forward(context, active, hidden, VL_GELU_ERF));
        VL_TRY(vl_linear_layer_backward(context, &connector->readout[1], d, dtokens, active, VL_WRITE));
        VL_TRY(vl_activation_backward(context, d, d, hidden, VL_GELU_ERF));
    }
    VL_TRY(vl_linear_layer_backward(context, &connector->readout[0], dmerged, d, connector->saved.merged, VL_WRITE));
    return VL_OK;
}

VlStatus vl_connector_forward(VlContext *context, VlConnector *connector, VlTensor features, int64_t visuals,
                              const VlVisual *visual, bool keep, VlTensor *tokens) {
    int64_t side = (int64_t)llround(sqrt((double)features.dim[1])), count, mark = vl_arena_mark(&context->scratch);
    if (features.dims != 3 || features.dim[2] != connector->config.input || side * side != features.dim[1]) {
        return vl_error(VL_INVALID, "vision features are %s: the connector takes [frames,side*side,%lld]",
                        vl_describe(features), (long long)connector->config.input);
    }
    VL_TRY(check_visuals(connector, features, visuals, visual, side, &count));
    memset(&connector->saved, 0, sizeof connector->saved);
    connector->saved.visuals = visuals;
    connector->saved.visual = visual;
    connector->saved.side = side;
    connector->saved.features = features;
    VlTensor merged;
    VL_TRY(vl_arena_push(&context->activations, tokens, features.dtype, count, connector->config.output));
    VL_TRY(merge_forward(context, connector, features, count, keep, &merged));
    connector->saved.merged = merged;
    VL_TRY(readout_forward(context, connector, *tokens, merged, keep));
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

// From the gradient of merged, which is overwritten, through s2, SiLU, sampler and s1.
static VlStatus merge_backward(VlContext *context, VlConnector *connector, VlTensor dfeatures, VlTensor dmerged) {
    VlTensor features = connector->saved.features, per_frame = connector->saved.per_frame;
    VlTensor dsampled = dmerged, dper_frame = VL_EMPTY;
    if (connector->config.depth > 0) {
        VL_TRY(vl_arena_push_make(&context->scratch, &dsampled, dmerged.dtype, dmerged.dims, dmerged.dim));
        VL_TRY(vl_regstage_backward(context, &connector->s2, sampled_frames(connector, dsampled),
                                    sampled_frames(connector, dmerged)));
        VL_TRY(vl_arena_push_make(&context->scratch, &dper_frame, per_frame.dtype, per_frame.dims, per_frame.dim));
    } else if (!vl_is_empty(dfeatures)) {
        dper_frame = vl_reshape_make(dfeatures, per_frame.dims, per_frame.dim);
    }
    VL_TRY(vl_activation_backward(context, dsampled, dsampled, connector->saved.sampled, VL_SILU));
    VL_TRY(sampler_backward(context, connector, dper_frame, dsampled));
    if (connector->config.depth > 0) {
        int64_t side = connector->saved.side;
        VlTensor dframes = VL_EMPTY;
        if (!vl_is_empty(dfeatures)) dframes = vl_reshape(dfeatures, features.dim[0], side, side, features.dim[2]);
        VL_TRY(vl_regstage_backward(context, &connector->s1, dframes, dper_frame));
    }
    return VL_OK;
}

VlStatus vl_connector_backward(VlContext *context, VlConnector *connector, VlTensor dfeatures, VlTensor dtokens) {
    int64_t mark = vl_arena_mark(&context->scratch);
    VlTensor merged = connector->saved.merged, dmerged = VL_EMPTY;
    if (connector->config.kind != VL_CONNECTOR_MLP || !vl_is_empty(dfeatures)) {
        VL_TRY(vl_arena_push_make(&context->scratch, &dmerged, merged.dtype, merged.dims, merged.dim));
    }
    VL_TRY(readout_backward(context, connector, dmerged, dtokens));
    if (connector->config.kind != VL_CONNECTOR_MLP) {
        VL_TRY(merge_backward(context, connector, dfeatures, dmerged));
    } else if (!vl_is_empty(dfeatures)) {
        VL_TRY(mean_frames(context, connector, dmerged, dfeatures, true));
    }
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}
