# Makes the files of this folder with PyTorch 2.4.1: python make.py
# Values are small integers (exact in every type): element i of a tensor holds `first + i`.
import collections
import json
import os

import torch

os.chdir(os.path.dirname(os.path.abspath(__file__)))


def ramp(first, *shape, dtype=torch.float32):
    count = 1
    for extent in shape:
        count *= extent
    return torch.arange(first, first + count).reshape(shape).to(dtype)


types = {
    "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "f64": torch.float64, "i64": torch.int64,
    "i32": torch.int32, "i16": torch.int16, "i8": torch.int8, "u8": torch.uint8,
}
tensors = {name: ramp(1, 2, 3, dtype=dtype) for name, dtype in types.items()}
tensors["bool"] = torch.tensor([[True, False, True], [False, False, True]])
tensors["scalar"] = torch.tensor(7.0)
tensors["empty"] = torch.zeros(0, 3)
base = ramp(0, 4, 6)
tensors["whole"] = base
tensors["transposed"] = base.t()
tensors["permuted"] = ramp(0, 2, 3, 4).permute(2, 0, 1)
tensors["column"] = base[:, 2]
tensors["every_second"] = base[1::2, ::3]
tensors["tied"] = base
tensors["tail"] = ramp(0, 6, dtype=torch.float16)[2:]
tensors["parameter"] = torch.nn.Parameter(ramp(5, 3), requires_grad=True)
for protocol in (2, 3, 4, 5):
    torch.save(tensors, f"types_{protocol}.pt", pickle_protocol=protocol)
torch.save(tensors, "legacy.pt", _use_new_zipfile_serialization=False)

module = torch.nn.Sequential(collections.OrderedDict(first=torch.nn.Linear(2, 3), norm=torch.nn.LayerNorm(3)))
with torch.no_grad():
    for i, parameter in enumerate(module.parameters()):
        parameter.copy_(ramp(10 * i, *parameter.shape))
torch.save(module.state_dict(), "state_dict.pt")  # an OrderedDict with attributes

cfg = {
    "encoder_layers": 12, "dropout": 0.1, "activation_fn": "gelu", "deep_norm": True, "none": None, "text": "\u00e4\u20ac",
    "list": [1, (2, 3), {4}], "big": 2**62, "negative": -(2**40), "inf": float("inf"), "bytes": b"\x00\xe4z",
    "size": torch.Size([2, 3]),
}
nested = {"cfg": cfg, "model": {"encoder.w": ramp(1, 2, 2), "steps": [ramp(9, 1), 5]}, "label_dict": {0: "zero", 1: "one"}}
for protocol in (2, 4):
    torch.save(nested, f"nested_{protocol}.pt", pickle_protocol=protocol)

os.makedirs("shards", exist_ok=True)
shards = {
    "pytorch_model-00001-of-00002.bin": {"a.weight": ramp(1, 3, 2), "b": ramp(50, 4, dtype=torch.bfloat16)},
    "pytorch_model-00002-of-00002.bin": {"a.bias": ramp(7, 3)},
}
for name, content in shards.items():
    torch.save(content, f"shards/{name}")
weight_map = {tensor: name for name, content in shards.items() for tensor in content}
with open("shards/pytorch_model.bin.index.json", "w") as file:
    json.dump({"metadata": {"total_size": 44}, "weight_map": weight_map}, file, indent=1)
    file.write("\n")
