#!/usr/bin/env python3
"""PyTorch's times for the rows that bench_ops.c times, under the same names: one JSON object a line.

    torch_ops.py [--device cuda] [--tokens 8192] [--only PART]

`variant` tells how: the fastest plain call, `compiled` through torch.compile, or the backend of its attention.
"""
import argparse
import json
import sys
import time

import torch
import torch.nn.functional as F

BF16 = torch.bfloat16


class Bench:
    def __init__(self, device, tokens):
        self.device, self.tokens = device, tokens
        torch.manual_seed(1)

    def noise(self, *shape, dtype=BF16, grad=False):
        return torch.randn(*shape, device=self.device, dtype=torch.float32).to(dtype).requires_grad_(grad)

    def wait(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def often(self, call, times):
        self.wait()
        begin = time.perf_counter()
        for _ in range(times):
            call()
        self.wait()
        return time.perf_counter() - begin

    def seconds(self, call):
        """The best of three batches of so many calls that each takes a fiftieth of a second."""
        self.often(call, 3)
        times = 1
        while self.often(call, times) < 0.02 and times < 1 << 14:
            times *= 2
        return min(self.often(call, times) for _ in range(3)) / times

    def report(self, name, call, variant="plain"):
        print(json.dumps({"op": name, "variant": variant, "seconds": self.seconds(call)}), flush=True)


def gradients(output, inputs, upstream):
    """A call that runs the backward pass of `output` again and again."""
    return lambda: torch.autograd.grad(output, inputs, upstream, retain_graph=True)


def linear(bench, name, rows, columns, inner):
    x, w, dy = bench.noise(rows, inner), bench.noise(columns, inner), bench.noise(rows, columns)
    if name.endswith("inputs"):
        bench.report(name, lambda: dy @ w)
    elif name.endswith("weights"):
        bench.report(name, lambda: dy.t() @ x)
    else:
        bench.report(name, lambda: F.linear(x, w))


def head(bench, name, rows, columns, inner):
    x, w = bench.noise(rows, inner, grad=True), bench.noise(columns, inner, grad=True)
    targets = torch.arange(rows, device=bench.device) * 7919 % columns

    def step():
        loss = F.cross_entropy(F.linear(x, w).float(), targets)
        torch.autograd.grad(loss, (x, w))

    bench.report(name, step)


def choose(logits):
    weights, experts = torch.softmax(logits.float(), -1).topk(2, -1)
    return weights / weights.sum(-1, keepdim=True), experts


def expert_products(bench, name, offsets, columns, inner):
    """`plain`: a product for each expert, whose rows the host knows."""
    rows, count = offsets[-1], len(offsets) - 1
    x, w, dy = bench.noise(rows, inner), bench.noise(count, columns, inner), bench.noise(rows, columns)
    parts = [slice(*pair) for pair in zip(offsets, offsets[1:])]
    ends = torch.tensor(offsets[1:], device=bench.device, dtype=torch.int32)
    grouped = getattr(torch, "_grouped_mm", None)
    if name.endswith("inputs"):
        calls = [lambda: [dy[part] @ w[e] for e, part in enumerate(parts)], lambda: grouped(dy, w, ends)]
    elif name.endswith("weights"):
        calls = [lambda: [dy[part].t() @ x[part] for part in parts], lambda: grouped(dy.t(), x, ends)]
    else:
        calls = [lambda: [F.linear(x[part], w[e]) for e, part in enumerate(parts)],
                 lambda: grouped(x, w.transpose(1, 2), ends)]
    bench.report(name, calls[0])
    if grouped is None or bench.device != "cuda":
        return
    try:
        bench.report(name, calls[1], "grouped")
    except RuntimeError as error:  # not on all processors
        print(f"{name} (grouped): {str(error).splitlines()[0]}", file=sys.stderr)


def experts(bench):
    t = bench.tokens
    logits = bench.noise(t, 8)
    weights, chosen = choose(logits)
    function(bench, "route", lambda x: choose(x)[0], logits, compiled=True)
    function(bench, "route backward", lambda x: choose(x)[0], logits.clone().requires_grad_(True), compiled=True)

    def group():
        order = chosen.flatten().sort(stable=True).indices
        places = torch.empty_like(order)
        places[order] = torch.arange(len(order), device=bench.device)
        return order // 2, places, torch.bincount(chosen.flatten(), minlength=8).cumsum(0)

    bench.report("group_slots", group)
    tokens, places, ends = group()
    x = bench.noise(t, 4096, grad=True)
    function(bench, "gather_rows experts", lambda x: x.index_select(0, tokens), x)
    function(bench, "gather_rows experts backward", lambda x: x.index_select(0, tokens), x)
    sums = lambda x, w: (x.index_select(0, places).view(t, 2, -1) * w[:, :, None].to(x.dtype)).sum(1)
    rows, weights = bench.noise(2 * t, 4096, grad=True), weights.detach().requires_grad_(True)
    function(bench, "combine", sums, rows, weights, compiled=True)
    function(bench, "combine backward", sums, rows, weights, compiled=True)
    del x, rows
    offsets = [0] + ends.tolist()
    for name, size in {"experts 14336x4096": (14336, 4096), "experts 4096x14336": (4096, 14336),
                       "experts 14336x4096 inputs": (14336, 4096), "experts 14336x4096 weights": (14336, 4096)}.items():
        expert_products(bench, name, offsets, *size)


def attention_backends(bench):
    if bench.device != "cuda":
        return {"plain": None}
    from torch.nn.attention import SDPBackend
    return {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


def attention(bench, name, sequences, length, heads, kv_heads, width, causal):
    backward = name.endswith("backward")
    q = bench.noise(sequences, heads, length, width, grad=backward)
    # Keys and values of a group are repeated beforehand: not all backends read them in place.
    k, v = (bench.noise(sequences, kv_heads, length, width).repeat_interleave(heads // kv_heads, 1)
            .requires_grad_(backward) for _ in range(2))
    for variant, backend in attention_backends(bench).items():
        try:
            if backend is None:
                run(bench, name, variant, q, k, v, causal, backward)
            else:
                from torch.nn.attention import sdpa_kernel
                with sdpa_kernel(backend):
                    run(bench, name, variant, q, k, v, causal, backward)
        except RuntimeError as error:
            print(f"{name} ({variant}): {str(error).splitlines()[0]}", file=sys.stderr)


def run(bench, name, variant, q, k, v, causal, backward):
    if not backward:
        bench.report(name, lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal), variant)
        return
    output = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    bench.report(name, gradients(output, (q, k, v), torch.randn_like(output)), variant)


def biased_attention(bench, name, sequences, length, heads, width):
    q, k, v = (bench.noise(sequences, heads, length, width) for _ in range(3))
    bias = bench.noise(sequences, heads, length, length)
    bench.report(name, lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=bias))


def function(bench, name, call, *inputs, compiled=False):
    """Times call(*inputs), or, for a name that ends in backward, its gradients; also through torch.compile."""
    variants = [("plain", call)]
    if compiled and bench.device == "cuda":
        variants.append(("compiled", torch.compile(call)))
    for variant, made in variants:
        try:
            if name.endswith("backward"):
                wanted = [x for x in inputs if x.requires_grad]
                output = made(*inputs)
                bench.report(name, gradients(output, wanted, torch.randn_like(output)), variant)
            else:
                with torch.no_grad():
                    bench.report(name, lambda: made(*inputs), variant)
        except Exception as error:  # torch.compile needs a C compiler and Triton
            print(f"{name} ({variant}): {str(error).splitlines()[0]}", file=sys.stderr)


def rotate(x, cosine, sine):
    a, b = x.float().chunk(2, -1)
    return torch.cat((a * cosine - b * sine, b * cosine + a * sine), -1).to(x.dtype)


def rows(bench):
    t = bench.tokens
    wide = [bench.noise(t, 4096, grad=True) for _ in range(2)]
    weight, bias = bench.noise(4096, grad=True), bench.noise(4096, grad=True)
    norm = lambda x, w: F.rms_norm(x, (4096,), w, 1e-5)
    function(bench, "rmsnorm", norm, wide[0], weight, compiled=True)
    function(bench, "rmsnorm backward", norm, wide[0], weight, compiled=True)
    function(bench, "layernorm backward", lambda x, w, b: F.layer_norm(x, (4096,), w, b), wide[0], weight, bias)
    tower, small = bench.noise(4616, 1024), bench.noise(1024)
    function(bench, "layernorm tower", lambda x, w: F.layer_norm(x, (1024,), w, w), tower, small)
    function(bench, "add", lambda a, b: a + b, *wide)
    function(bench, "gelu backward", F.gelu, wide[0])
    function(bench, "quick_gelu tower", lambda x: x * torch.sigmoid(1.702 * x), bench.noise(4616, 4096), compiled=True)
    angles = torch.rand(t, 1, 64, device=bench.device)
    function(bench, "rotary", rotate, bench.noise(t, 32, 128), angles.cos(), angles.sin(), compiled=True)
    del wide
    gate, up = (bench.noise(t, 14336, grad=True) for _ in range(2))
    function(bench, "swiglu", lambda a, b: F.silu(a) * b, gate, up, compiled=True)
    function(bench, "swiglu backward", lambda a, b: F.silu(a) * b, gate, up, compiled=True)
    with torch.no_grad():
        bench.report("copy", lambda: up.copy_(gate))
        bench.report("zero", lambda: up.zero_())


def tables(bench):
    t = bench.tokens
    table = bench.noise(32000, 4096, grad=True)
    ids = torch.arange(t, device=bench.device) * 7919 % 32000
    function(bench, "embedding", F.embedding, ids, table)
    function(bench, "embedding backward", lambda table: F.embedding(ids, table), table)
    x = bench.noise(t, 4096, grad=True)
    index = torch.arange(max(t // 2, 1), device=bench.device) * 7919 % t
    function(bench, "gather_rows", lambda x: x.index_select(0, index), x)
    function(bench, "gather_rows backward", lambda x: x.index_select(0, index), x)


def optimizer(bench):
    flat = bench.noise(bench.tokens * 32768, dtype=torch.float32)
    bench.report("square_sum", lambda: torch.linalg.vector_norm(flat))
    bench.report("cast f32 bf16", lambda: flat.to(BF16))
    flat.requires_grad_(True)
    flat.grad = torch.randn_like(flat)
    adamw = torch.optim.AdamW([flat], lr=1e-5, weight_decay=0.0, fused=bench.device == "cuda")
    bench.report("adamw", adamw.step)


def pictures(bench):
    x = bench.noise(8, 4096, 24, 24).contiguous(memory_format=torch.channels_last).requires_grad_(True)
    w = bench.noise(4096, 1, 3, 3, grad=True)
    convolve = lambda x, w: F.conv2d(x, w, padding=1, groups=4096)
    function(bench, "depthwise3x3", convolve, x, w)
    function(bench, "depthwise3x3 backward", convolve, x, w)
    function(bench, "mean_rows", lambda x: x.mean((2, 3)), x)
    function(bench, "sigmoid_gate", lambda x, g: x * torch.sigmoid(g), x, bench.noise(8, 4096, 1, 1), compiled=True)
    sound, taps = bench.noise(1, 768, 1984, grad=True), bench.noise(768, 48, 128, grad=True)
    convolve = lambda x, w: F.conv1d(x, w, padding=64, groups=16)
    function(bench, "convolution1d", convolve, sound, taps)
    function(bench, "convolution1d backward", convolve, sound, taps)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    bench, t = Bench(options.device, options.tokens), options.tokens
    quarter = max(t // 4, 1)
    products = {
        "linear 4096x4096": (t, 4096, 4096),
        "linear 14336x4096": (t, 14336, 4096),
        "linear 4096x14336": (t, 4096, 14336),
        "linear 14336x4096 inputs": (t, 14336, 4096),
        "linear 14336x4096 weights": (t, 14336, 4096),
        "linear tower 4096x1024": (4616, 4096, 1024),
    }
    attentions = {
        "attention 4 sequences": (4, quarter, 32, 8, 128, True),
        "attention 1 sequence": (1, t, 32, 8, 128, True),
        "attention head 64": (4, quarter, 16, 16, 64, True),
        "attention tower 64": (8, 577, 16, 16, 64, False),
        "attention tower 72": (8, 729, 16, 16, 72, False),
    }
    groups = [(name, lambda name=name, size=size: linear(bench, name, *size)) for name, size in products.items()]
    groups.append(("head and loss 32000x4096", lambda: head(bench, "head and loss 32000x4096", max(t // 2, 1), 32000, 4096)))
    for name, size in attentions.items():
        groups.append((name, lambda name=name, size=size: attention(bench, name, *size)))
        if "tower" not in name:
            groups.append((name, lambda name=name, size=size: attention(bench, name + " backward", *size)))
    groups.append(("biased attention", lambda: biased_attention(bench, "biased attention", 4, 496, 12, 64)))
    groups += [(call.__name__, lambda call=call: call(bench)) for call in (experts, rows, tables, optimizer, pictures)]
    failed = 0
    for name, call in groups:
        if options.only not in name:
            continue
        try:
            call()
        except Exception as error:
            failed += 1
            print(f"{name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", file=sys.stderr)
        if options.device == "cuda":
            torch.cuda.empty_cache()
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
