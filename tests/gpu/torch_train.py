#!/usr/bin/env python3
"""Training steps of the 7B shape in plain PyTorch, to hold `vl2 bench train` against: one JSON object.

    torch_train.py --model tests/gpu/models/7b --layers 16 --frames 8 --text-tokens 1204,2048,2048,2048 --steps 5

The same work as vl2's: frozen CLIP tower (up to the block before the last), STC connector, Mistral decoder with SDPA,
loss on the labelled three quarters of the text, clipping, AdamW with an f32 master and f32 moments beside bf16 weights.
As usual with PyTorch, samples of different lengths are padded to the longest and the head computes every position.
The decoder's layers and the tower go through torch.compile unless --eager; no recomputation.
"""
import argparse
import json
import os
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

BF16 = torch.bfloat16


class RmsNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)


def rotate(x, cosine, sine):
    a, b = x.float().chunk(2, -1)
    return torch.cat((a * cosine - b * sine, b * cosine + a * sine), -1).to(x.dtype)


class DecoderLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, inner = config["hidden_size"], config["intermediate_size"]
        self.heads, self.kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.head_size = width // self.heads
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, self.kv_heads * self.head_size, bias=False)
        self.v = nn.Linear(width, self.kv_heads * self.head_size, bias=False)
        self.o = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, inner, bias=False)
        self.up = nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)
        self.norm1, self.norm2 = (RmsNorm(width, config["rms_norm_eps"]) for _ in range(2))

    def forward(self, x, cosine, sine):
        batch, length, width = x.shape
        y = self.norm1(x)
        q, k, v = (linear(y).view(batch, length, -1, self.head_size).transpose(1, 2)
                   for linear in (self.q, self.k, self.v))
        q, k = rotate(q, cosine, sine), rotate(k, cosine, sine)
        groups = self.heads // self.kv_heads
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(batch, length, width))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class TowerLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, inner = config["hidden_size"], config["intermediate_size"]
        self.heads = config["num_attention_heads"]
        self.qkv, self.o = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norm1, self.norm2 = (nn.LayerNorm(width) for _ in range(2))

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, width)
        x = x + self.o(y)
        y = self.up(self.norm2(x))
        return x + self.down(y * torch.sigmoid(1.702 * y))


class Tower(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, patch = config["hidden_size"], config["patch_size"]
        self.side = config["image_size"] // patch
        self.patches = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, self.side**2 + 1, width))
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(TowerLayer(config) for _ in range(config["num_hidden_layers"] - 1))

    def forward(self, pixels):
        x = self.patches(pixels).flatten(2).transpose(1, 2)
        x = self.norm(torch.cat((self.first.expand(len(x), -1, -1), x), 1) + self.positions)
        for layer in self.layers:
            x = layer(x)
        return x[:, 1:]


class ChannelNorm(nn.LayerNorm):
    def forward(self, x):  # [N,C,h,w]
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class RegBlock(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        squeezed = round(inputs * 0.25)
        self.conv1, self.norm1 = nn.Conv2d(inputs, outputs, 1, bias=False), ChannelNorm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, groups=outputs, bias=False)
        self.norm2 = ChannelNorm(outputs)
        self.squeeze, self.expand = nn.Conv2d(outputs, squeezed, 1), nn.Conv2d(squeezed, outputs, 1)
        self.conv3, self.norm3 = nn.Conv2d(outputs, outputs, 1, bias=False), ChannelNorm(outputs)
        self.shortcut = None
        if inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), ChannelNorm(outputs))

    def forward(self, x):
        y = F.silu(self.norm1(self.conv1(x)))
        y = F.silu(self.norm2(self.conv2(y)))
        y = y * torch.sigmoid(self.expand(F.silu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        return F.silu(self.norm3(self.conv3(y)) + (self.shortcut(x) if self.shortcut else x))


class Connector(nn.Module):
    def __init__(self, inputs, outputs, depth=4):
        super().__init__()
        self.s1 = nn.Sequential(*(RegBlock(inputs if i == 0 else outputs, outputs) for i in range(depth)))
        self.sampler = nn.Conv3d(outputs, outputs, 2, stride=2, padding=1)
        self.s2 = nn.Sequential(*(RegBlock(outputs, outputs) for _ in range(depth)))
        self.readout = nn.Sequential(nn.Linear(outputs, outputs), nn.GELU(), nn.Linear(outputs, outputs))

    def forward(self, features, side):
        frames, _, width = features.shape
        x = self.s1(features.view(frames, side, side, width).permute(0, 3, 1, 2))
        x = F.silu(self.sampler(x.transpose(0, 1).unsqueeze(0)))[0].transpose(0, 1)
        return self.readout(self.s2(x).permute(0, 2, 3, 1).flatten(0, 2))


class Model(nn.Module):
    def __init__(self, config, tower):
        super().__init__()
        self.config = config
        width = config["hidden_size"]
        self.tower = Tower(tower) if tower else None
        self.connector = Connector(tower["hidden_size"], width) if tower else None
        self.embedding = nn.Embedding(config["vocab_size"], width)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config["num_hidden_layers"]))
        self.norm = RmsNorm(width, config["rms_norm_eps"])
        self.head = nn.Linear(width, config["vocab_size"], bias=False)

    def angles(self, length, device):
        size = self.config["hidden_size"] // self.config["num_attention_heads"]
        rates = self.config["rope_theta"] ** (-torch.arange(0, size, 2, device=device) / size)
        angles = torch.arange(length, device=device)[:, None] * rates
        return angles.cos(), angles.sin()

    def forward(self, batch):
        x = self.embedding(batch["ids"])
        if batch["pixels"] is not None:  # the first sample begins with its video
            with torch.no_grad():
                features = self.tower(batch["pixels"])
            video = self.connector(features, self.tower.side)
            x = torch.cat((torch.cat((video, x[0, len(video):]))[None], x[1:]))
        cosine, sine = self.angles(x.shape[1], x.device)
        for layer in self.layers:
            x = layer(x, cosine, sine)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.float().flatten(0, 1), batch["targets"].flatten(), ignore_index=-100)


def make_batch(config, tower, options, device):
    """As vl2's: random ids, the last three quarters of each text labelled, padded to the longest."""
    lengths = [int(n) for n in options.text_tokens.split(",")]
    video = 0
    if options.frames > 0 and tower:
        side = tower["image_size"] // tower["patch_size"]
        video = (options.frames // 2 + 1) * (side // 2 + 1) ** 2
    totals = [n - 1 + video if i == 0 and video else n for i, n in enumerate(lengths)]
    longest = max(totals)
    ids = torch.randint(config["vocab_size"], (len(lengths), longest))
    targets = torch.full_like(ids, -100)
    for i, (text, total) in enumerate(zip(lengths, totals)):
        first = total - text + text // 4
        first = max(first, 1)
        targets[i, first - 1:total - 1] = ids[i, first:total]
    pixels = None
    if video:
        size = tower["image_size"]
        pixels = torch.randn(options.frames, 3, size, size).to(device, BF16)
    return {"ids": ids.to(device), "targets": targets.to(device), "pixels": pixels}, sum(totals)


class Optimizer:
    """AdamW with an f32 copy of the weights, gradients clipped to norm 1."""

    def __init__(self, parameters, device):
        self.parameters = parameters
        self.masters = [p.detach().float().clone() for p in parameters]
        self.adamw = torch.optim.AdamW(self.masters, lr=1e-5, weight_decay=0.0, fused=device == "cuda")

    def step(self):
        for parameter, master in zip(self.parameters, self.masters):
            master.grad = parameter.grad.float()
            parameter.grad = None
        torch.nn.utils.clip_grad_norm_(self.masters, 1.0, foreach=True)
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, self.masters)


def build(options, device):
    with open(os.path.join(options.model, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    tower = None
    if options.frames > 0:
        with open(os.path.join(options.model, config["mm_vision_tower"], "config.json"), encoding="utf-8") as file:
            tower = json.load(file)
    if options.layers > 0:
        config["num_hidden_layers"] = options.layers
    torch.manual_seed(1)
    torch.set_default_dtype(BF16)
    with torch.device(device):
        model = Model(config, tower)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)
    torch.set_default_dtype(torch.float32)
    if model.tower:
        model.tower.requires_grad_(False)
    return model, config, tower


def compile_parts(model):
    for layer in model.layers:
        layer.compile()
    if model.tower:
        model.tower.compile()


def measure(model, batch, options, device):
    optimizer = Optimizer([p for p in model.parameters() if p.requires_grad], device)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    seconds = []
    for i in range(options.steps + 3):  # three to warm up: compilation, choice of kernels, memory
        wait()
        begin = time.perf_counter()
        loss = model(batch)
        loss.backward()
        optimizer.step()
        wait()
        if i >= 3:
            seconds.append(time.perf_counter() - begin)
        elif device == "cuda":
            torch.cuda.reset_peak_memory_stats()
    return sorted(seconds), float(loss)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--layers", type=int, default=0, help="0: those of config.json")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--text-tokens", default="1204,2048,2048,2048")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device, compiled = options.device, not options.eager
    model, config, tower = build(options, device)
    batch, tokens = make_batch(config, tower, options, device)
    if compiled:
        compile_parts(model)
    try:
        seconds, loss = measure(model, batch, options, device)
    except Exception as error:  # torch.compile needs a C compiler and Triton
        if not compiled or isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        print(f"torch.compile: {str(error).splitlines()[0]}; again without it", file=sys.stderr)
        return os.execv(sys.executable, [sys.executable, *sys.argv, "--eager"])
    result = {"tokens": tokens, "padded_tokens": batch["ids"].numel(), "seconds_min": seconds[0],
              "seconds_median": seconds[len(seconds) // 2], "tokens_per_s": tokens / seconds[0], "loss": loss,
              "compiled": compiled, "steps": options.steps, "torch": torch.__version__}
    if device == "cuda":
        result["device_bytes"] = torch.cuda.max_memory_allocated()
        result["gpu"] = torch.cuda.get_device_name()
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
