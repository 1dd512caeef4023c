// The one list of operations. It expands to the backends' function table, to the public functions with their checks
// (ops.h, dispatch.c), and to the list that the tests walk.
//
//   OP(name, FORWARD parameters, FORWARD names, BACKWARD parameters, BACKWARD names)
//   OP_NO_GRADIENT(name, parameters, names, reason)
//
// Order of arguments: outputs, inputs, what forward saved, scalars. dX is the gradient of X.
//   - Outputs and gradients of activations are written. A `mode` of VL_ADD adds to the first output instead (y in
//     forward, dx in backward): that is how residuals are summed without an operation of their own.
//   - Gradients of parameters (weights, biases, tables) are f32 and always added to.
//   - An empty view (VL_EMPTY) for a gradient means "not wanted"; for a bias "absent".
//   - Activations and weights are f32 or bf16, of one type within a call; statistics, losses and tables are f32; sums
//     are f32.
//   - Index tensors are i64 device tensors; an index out of range is an error on backends that can see it.
//   - No output overlaps an input, except where the row says "in place".
// Reductions have a fixed order that does not depend on the number of threads.
//
// Letters: T tokens, D head size, Q query heads, G key/value heads, N frames, C channels, V vocabulary, M rows, K, N
// columns.

// y[M,N] (+)= x[M,K] w[N,K]^T + b[N].  dx (+)= dy w; dw += dy^T x; db += column sums of dy. y may be f32 with bf16
// inputs.
OP(linear, (VlContext * context, VlTensor y, VlTensor x, VlTensor w, VlTensor b, VlMode mode),
   (context, y, x, w, b, mode),
   (VlContext * context, VlTensor dx, VlTensor dw, VlTensor db, VlTensor dy, VlTensor x, VlTensor w, VlMode mode),
   (context, dx, dw, db, dy, x, w, mode))

// Packed attention: o[Tq,Q*D], lse[Q,Tq] f32 (natural log of the softmax denominator) from q[Tq,Q*D], k[Tk,G*D],
// v[Tk,G*D]. Sequence s has queries cu_q[s]..cu_q[s+1] and keys cu_k[s]..cu_k[s+1] (i64 [B+1]). Scale 1/sqrt(D).
// Causal: the last query sees the last key, the one before it one key less, ... Query head i reads key head i / (Q/G).
// lse may be empty when no backward follows.
OP(attention,
   (VlContext * context, VlTensor o, VlTensor lse, VlTensor q, VlTensor k, VlTensor v, VlTensor cu_q, VlTensor cu_k,
    int64_t heads, int64_t kv_heads, bool causal),
   (context, o, lse, q, k, v, cu_q, cu_k, heads, kv_heads, causal),
   (VlContext * context, VlTensor dq, VlTensor dk, VlTensor dv, VlTensor d_o, VlTensor q, VlTensor k, VlTensor v,
    VlTensor o, VlTensor lse, VlTensor cu_q, VlTensor cu_k, int64_t heads, int64_t kv_heads, bool causal),
   (context, dq, dk, dv, d_o, q, k, v, o, lse, cu_q, cu_k, heads, kv_heads, causal))

// Full packed self-attention with a gated bias that depends on the distance only: the score of query i and key j of a
// sequence, head h, is q k / sqrt(D) + gate[i,h] * bias[h, L-1 + i - j]. q, k, v, o [T,H*D]; gate[T,H] and bias[H,2L-1]
// f32, L at least the longest sequence of cu_seqlens (i64 [B+1]). dgate is written, dbias added to.
OP(biased_attention,
   (VlContext * context, VlTensor o, VlTensor lse, VlTensor q, VlTensor k, VlTensor v, VlTensor bias, VlTensor gate,
    VlTensor cu_seqlens, int64_t heads),
   (context, o, lse, q, k, v, bias, gate, cu_seqlens, heads),
   (VlContext * context, VlTensor dq, VlTensor dk, VlTensor dv, VlTensor dbias, VlTensor dgate, VlTensor d_o,
    VlTensor q, VlTensor k, VlTensor v, VlTensor o, VlTensor lse, VlTensor bias, VlTensor gate, VlTensor cu_seqlens,
    int64_t heads),
   (context, dq, dk, dv, dbias, dgate, d_o, q, k, v, o, lse, bias, gate, cu_seqlens, heads))

// bias[H,2L-1] f32: column L-1 + i - j = table[bucket(j - i),H]. Half of the table's rows are for j > i; of each half,
// the first half are distances one by one, the rest grows logarithmically up to max_distance (T5: Raffel et al.,
// "Exploring the limits of transfer learning", 2020).
OP(relative_bias, (VlContext * context, VlTensor bias, VlTensor table, int64_t max_distance),
   (context, bias, table, max_distance), (VlContext * context, VlTensor dtable, VlTensor dbias, int64_t max_distance),
   (context, dtable, dbias, max_distance))

// gate[T,H] f32 = a * (b * scale[H] - 1) + 2 with a and b the sigmoids of the sums of the first and of the last half of
// w[2N,D] q + bias[2N] per head of q[T,H*D] (BEATs' gated relative position bias; WavLM: Chen et al., 2022).
OP(relative_gate, (VlContext * context, VlTensor gate, VlTensor q, VlTensor w, VlTensor bias, VlTensor scale),
   (context, gate, q, w, bias, scale),
   (VlContext * context, VlTensor dq, VlTensor dw, VlTensor dbias, VlTensor dscale, VlTensor dgate, VlTensor q,
    VlTensor w, VlTensor bias, VlTensor scale, VlMode mode),
   (context, dq, dw, dbias, dscale, dgate, q, w, bias, scale, mode))

// y = x * rstd * w with rstd[M] = 1/sqrt(mean(x^2) + eps), over rows of x[M,C].
OP(rmsnorm, (VlContext * context, VlTensor y, VlTensor rstd, VlTensor x, VlTensor w, float eps),
   (context, y, rstd, x, w, eps),
   (VlContext * context, VlTensor dx, VlTensor dw, VlTensor dy, VlTensor x, VlTensor w, VlTensor rstd, VlMode mode),
   (context, dx, dw, dy, x, w, rstd, mode))

// y = (x - mean) * rstd * w + b over rows of x[M,C]; mean[M], rstd[M] = 1/sqrt(variance + eps).
OP(layernorm,
   (VlContext * context, VlTensor y, VlTensor mean, VlTensor rstd, VlTensor x, VlTensor w, VlTensor b, float eps),
   (context, y, mean, rstd, x, w, b, eps),
   (VlContext * context, VlTensor dx, VlTensor dw, VlTensor db, VlTensor dy, VlTensor x, VlTensor w, VlTensor mean,
    VlTensor rstd, VlMode mode),
   (context, dx, dw, db, dy, x, w, mean, rstd, mode))

// table[T,D] f32: cos of the D/2 angles, then sin; angle i of a row = position * theta^(-2i/D). positions[T] i64.
OP_NO_GRADIENT(rotary_table, (VlContext * context, VlTensor table, VlTensor positions, double theta),
               (context, table, positions, theta), "depends on no parameter")

// Rotates the pairs (i, i + D/2) of every head of x[T,heads*D] by the angles of table[T,D]. In place allowed (y is x,
// dx is dy).
OP(rotary, (VlContext * context, VlTensor y, VlTensor x, VlTensor table, int64_t heads), (context, y, x, table, heads),
   (VlContext * context, VlTensor dx, VlTensor dy, VlTensor table, int64_t heads), (context, dx, dy, table, heads))

// y = silu(gate) * up, element by element. In place allowed: dgate may be gate, dup may be up, dup may not be dgate.
OP(swiglu, (VlContext * context, VlTensor y, VlTensor gate, VlTensor up), (context, y, gate, up),
   (VlContext * context, VlTensor dgate, VlTensor dup, VlTensor dy, VlTensor gate, VlTensor up),
   (context, dgate, dup, dy, gate, up))

// y = f(x), element by element. In place allowed (y is x, dx is dy).
OP(activation, (VlContext * context, VlTensor y, VlTensor x, VlActivation kind), (context, y, x, kind),
   (VlContext * context, VlTensor dx, VlTensor dy, VlTensor x, VlActivation kind), (context, dx, dy, x, kind))

// y[N,S,C] = x[N,S,C] * sigmoid(gate[N,C]).
OP(sigmoid_gate, (VlContext * context, VlTensor y, VlTensor x, VlTensor gate), (context, y, x, gate),
   (VlContext * context, VlTensor dx, VlTensor dgate, VlTensor dy, VlTensor x, VlTensor gate),
   (context, dx, dgate, dy, x, gate))

// y[N,C] = mean over S of x[N,S,C].
OP(mean_rows, (VlContext * context, VlTensor y, VlTensor x), (context, y, x),
   (VlContext * context, VlTensor dx, VlTensor dy, VlMode mode), (context, dx, dy, mode))

// Depthwise 3x3 convolution, padding 1, stride 1: x[N,H,W,C], w[C,3,3] -> y[N,H,W,C].
OP(depthwise3x3, (VlContext * context, VlTensor y, VlTensor x, VlTensor w), (context, y, x, w),
   (VlContext * context, VlTensor dx, VlTensor dw, VlTensor dy, VlTensor x, VlTensor w), (context, dx, dw, dy, x, w))

// Grouped convolution over time, of packed sequences: y[t] = b + sum over the taps of w[C,K,C/G] times x[t + tap -
// K/2], zeros outside of t's sequence cu_seqlens[s]..cu_seqlens[s+1] (i64 [B+1]); x[T,C] -> y[T,C]. Output channel c
// reads the C/G channels of its group. w's order is output channel, tap, input channel.
OP(convolution1d,
   (VlContext * context, VlTensor y, VlTensor x, VlTensor w, VlTensor b, VlTensor cu_seqlens, int64_t groups),
   (context, y, x, w, b, cu_seqlens, groups),
   (VlContext * context, VlTensor dx, VlTensor dw, VlTensor db, VlTensor dy, VlTensor x, VlTensor w,
    VlTensor cu_seqlens, int64_t groups, VlMode mode),
   (context, dx, dw, db, dy, x, w, cu_seqlens, groups, mode))

// w[O,K,I] = g[K] * v[O,I,K] / sqrt(sum of the squares of v's tap K + 1e-6): weight normalisation over the last axis
// (BEATs, its positional convolution). dw is f32; dg and dv are added to.
OP(weight_norm, (VlContext * context, VlTensor w, VlTensor g, VlTensor v), (context, w, g, v),
   (VlContext * context, VlTensor dg, VlTensor dv, VlTensor dw, VlTensor g, VlTensor v), (context, dg, dv, dw, g, v))

// columns[N*(h/p)*(w/p), C*p*p] from pixels[N,C,h,w] f32: the patches of a convolution with kernel = stride = p; rows
// and columns of pixels that fill no patch are left out. Order within a row: channel, row, column (a Conv2d weight's
// own).
OP_NO_GRADIENT(patches, (VlContext * context, VlTensor columns, VlTensor pixels, int64_t patch),
               (context, columns, pixels, patch), "pixels are data")

// columns[N*t'*h'*w', C*kt*kh*kw] from x[N,T,H,W,C]: the blocks of a 3-d convolution with stride = kernel and `padding`
// zeros on each side of all three axes; n' = floor((n + 2*padding - k) / k) + 1. Order within a row: channel, t, h, w
// (a Conv3d weight's).
OP(unfold3d, (VlContext * context, VlTensor columns, VlTensor x, int64_t kt, int64_t kh, int64_t kw, int64_t padding),
   (context, columns, x, kt, kh, kw, padding),
   (VlContext * context, VlTensor dx, VlTensor dcolumns, int64_t kt, int64_t kh, int64_t kw, int64_t padding),
   (context, dx, dcolumns, kt, kh, kw, padding))

// y[N,t',h',w',C] = mean of the kt x kh x kw blocks of x[N,T,H,W,C]; stride = kernel, no padding, n' = floor(n / k).
OP(average_pool3d, (VlContext * context, VlTensor y, VlTensor x, int64_t kt, int64_t kh, int64_t kw),
   (context, y, x, kt, kh, kw), (VlContext * context, VlTensor dx, VlTensor dy, int64_t kt, int64_t kh, int64_t kw),
   (context, dx, dy, kt, kh, kw))

// y[N,E+P,C]: the class token (E = 1; E = 0 when class_token[C] is empty), then patches[N,P,C]; plus position[E+P,C].
OP(vit_embedding, (VlContext * context, VlTensor y, VlTensor patches, VlTensor class_token, VlTensor position),
   (context, y, patches, class_token, position),
   (VlContext * context, VlTensor dpatches, VlTensor dclass_token, VlTensor dposition, VlTensor dy),
   (context, dpatches, dclass_token, dposition, dy))

// y[T,C] = table[V,C] at ids[T].  dtable += dy at ids, in the order of T.
OP(embedding, (VlContext * context, VlTensor y, VlTensor table, VlTensor ids), (context, y, table, ids),
   (VlContext * context, VlTensor dtable, VlTensor dy, VlTensor ids), (context, dtable, dy, ids))

// y[M,C] = x[N,C] at index[M]; an index may repeat.  dx = sum of dy over the places it went to, zero where it went
// nowhere.
OP(gather_rows, (VlContext * context, VlTensor y, VlTensor x, VlTensor index), (context, y, x, index),
   (VlContext * context, VlTensor dx, VlTensor dy, VlTensor index), (context, dx, dy, index))

// y[T,C]: row t = text[source[t]] where source[t] >= 0, else media[-1 - source[t]]; every row of text and media is used
// exactly once. media is empty when there is none.
OP(splice, (VlContext * context, VlTensor y, VlTensor text, VlTensor media, VlTensor source),
   (context, y, text, media, source),
   (VlContext * context, VlTensor dtext, VlTensor dmedia, VlTensor dy, VlTensor source),
   (context, dtext, dmedia, dy, source))

// ---- Mixture of experts: E experts, S of them for a token, R = T*S slots; slot t*S + s is token t's s-th choice -----

// experts[T,S] i64 = the S largest of a row of logits[T,E], the largest first, of equals the lower index; weights[T,S]
// f32 = softmax over these S, which is softmax over all E, the S largest, divided by their sum. The choice has no
// gradient; dlogits is of the type of logits.
OP(route, (VlContext * context, VlTensor weights, VlTensor experts, VlTensor logits),
   (context, weights, experts, logits),
   (VlContext * context, VlTensor dlogits, VlTensor dweights, VlTensor weights, VlTensor experts),
   (context, dlogits, dweights, weights, experts))

// The slots sorted by expert, those of an expert in their order: row j of the sorted is of token tokens[j] (i64 [R]),
// slot r is row places[r] (i64 [R]), expert e's rows are offsets[e]..offsets[e+1] (i64 [E+1]).
OP_NO_GRADIENT(group_slots, (VlContext * context, VlTensor offsets, VlTensor tokens, VlTensor places, VlTensor experts),
               (context, offsets, tokens, places, experts), "indices have none")

// y[R,N] (+)= x[R,K] w[e]^T, row by row with the weight w[E,N,K] of the expert e that offsets (i64 [E+1]) give the row
// to.  dx (+)= dy w[e]; dw[e] += dy^T x over the rows of e. An expert without rows costs nothing and changes nothing.
OP(grouped_linear, (VlContext * context, VlTensor y, VlTensor x, VlTensor w, VlTensor offsets, VlMode mode),
   (context, y, x, w, offsets, mode),
   (VlContext * context, VlTensor dx, VlTensor dw, VlTensor dy, VlTensor x, VlTensor w, VlTensor offsets, VlMode mode),
   (context, dx, dw, dy, x, w, offsets, mode))

// y[T,C] (+)= sum over s, in order, of weights[t,s] * x[places[t*S+s]]; x[R,C], weights[T,S] f32, places i64 [R] name
// every row of x once. dx and dweights are written.
OP(combine, (VlContext * context, VlTensor y, VlTensor x, VlTensor weights, VlTensor places, VlMode mode),
   (context, y, x, weights, places, mode),
   (VlContext * context, VlTensor dx, VlTensor dweights, VlTensor dy, VlTensor x, VlTensor weights, VlTensor places),
   (context, dx, dweights, dy, x, weights, places))

// Head and loss in one pass over row blocks; the logits matrix x w^T never exists. losses[M] f32 = logsumexp(x w^T) -
// (x w^T)[target]; dx = scale * dlosses/dx; dw += scale * dlosses/dw. x[M,C], w[V,C], targets[M] i64.
OP_NO_GRADIENT(linear_cross_entropy,
               (VlContext * context, VlTensor losses, VlTensor dx, VlTensor dw, VlTensor x, VlTensor w,
                VlTensor targets, float scale),
               (context, losses, dx, dw, x, w, targets, scale), "the forward pass gives the gradients itself")

// y = scale * a + b; b may be empty. y may be a or b.
OP_NO_GRADIENT(add_tensors, (VlContext * context, VlTensor y, VlTensor a, float scale, VlTensor b),
               (context, y, a, scale, b), "is its own gradient: of a scale * dy, of b dy")

// y = 0.
OP_NO_GRADIENT(zero, (VlContext * context, VlTensor y), (context, y), "has no input")

// y = x, converted to y's type (f32, bf16; other types only to themselves).
OP_NO_GRADIENT(cast, (VlContext * context, VlTensor y, VlTensor x), (context, y, x), "the gradient is a cast of dy")

// sum[1] f64 = the sum of the squares of x (f32); blocks of a fixed length, added in order.
OP_NO_GRADIENT(square_sum, (VlContext * context, VlTensor sum, VlTensor x), (context, sum, x), "used on gradients only")

// AdamW on a flat range (Loshchilov & Hutter, "Decoupled weight decay regularization", 2019; arithmetic as
// torch.optim.AdamW). moment1[n], moment2[n] f32, gradient[n] f32 (multiplied by settings.gradient_scale first). What
// is updated is f32: weight[n] f32, with an empty remainder, or what weight[n] bf16 and remainder[n] i16 are the halves
// of (vl_halves_from_f32).
OP_NO_GRADIENT(adamw,
               (VlContext * context, VlTensor weight, VlTensor remainder, VlTensor moment1, VlTensor moment2,
                VlTensor gradient, VlAdamW settings),
               (context, weight, remainder, moment1, moment2, gradient, settings), "is the optimizer's step")
