#!/usr/bin/env python3
"""Tables of what tests/gpu/run has left in a folder: report.py ops|train|compare DIR."""
import json
import os
import sys


def load(folder, name):
    """One object, or None where the file is missing, empty or cut off."""
    try:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def load_lines(folder, name):
    found = []
    try:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            for line in file:
                try:
                    found.append(json.loads(line))
                except ValueError:
                    pass
    except OSError:
        pass
    return found


def ops(folder):
    """Each kernel's rate, its share of the machine's limit, and PyTorch's fastest time over ours."""
    machine = load(folder, "machine.json") or {}
    product = machine.get("gemm_bf16_gflop_per_s", 0) * 1e9
    moving = machine.get("copy_gb_per_s", 0) * 1e9
    theirs = {}
    for row in load_lines(folder, "torch.jsonl"):
        best = theirs.get(row["op"])
        if best is None or row["seconds"] < best["seconds"]:
            theirs[row["op"]] = row
    print(f"{'operation':34} {'us':>9} {'rate':>15} {'of limit':>9} {'PyTorch us':>11} {'ratio':>6}  how")
    for row in load_lines(folder, "ours.jsonl"):
        seconds, flops, size = row["seconds"], row["flops"], row["bytes"]
        if product and moving and flops / product > size / moving:
            rate, share = f"{flops / seconds / 1e12:8.1f} TFLOP/s", flops / product / seconds
        else:
            rate, share = f"{size / seconds / 1e9:8.1f} GB/s   ", size / moving / seconds if moving else 0
        other = theirs.get(row["op"])
        beside = f"{1e6 * other['seconds']:11.1f} {other['seconds'] / seconds:6.2f}  {other['variant']}" if other else ""
        print(f"{row['op']:34} {1e6 * seconds:9.1f} {rate:>15} {100 * share:8.1f}% {beside}")
    print(f"limits: {product / 1e12:.1f} TFLOP/s in bf16, {moving / 1e9:.0f} GB/s in a copy; ratio: PyTorch's time / ours")


def train(folder):
    print(f"{'steps':20} {'tokens':>7} {'seconds':>9} {'tokens/s':>9} {'TFLOP/s':>8} {'MFU':>6} {'GB':>6} {'planned':>8}")
    for name in ("connector-4x2048", "full-2x2048", "full-4x2048"):
        row = load(folder, name + ".json")
        if row is None:
            print(f"{name:20} no result")
            continue
        taken = row.get("device_bytes", row["peak_rss_bytes"])
        print(f"{name:20} {row['tokens']:7} {row['seconds_min']:9.4f} {row['tokens_per_s']:9.0f} "
              f"{row['gflop_per_s'] / 1e3:8.1f} {100 * row.get('mfu', 0):5.1f}% {taken / 1e9:6.1f} "
              f"{row['planned_bytes'] / 1e9:8.1f}")
        split = row["split"]
        print(f"{'':20} forward {split['forward']:.4f}, backward {split['backward']:.4f}, "
              f"optimizer {split['optimizer']:.4f} s")
        profile(row.get("profile", []))


def profile(rows, most=24):
    """Parts, then the operations that lose most against the machine's limits: each was waited for."""
    if not rows:
        return
    print(f"{'':20} {'part':16} {'operation':30} {'calls':>6} {'ms':>9} {'limit ms':>9} {'reached':>8}")
    for row in rows[:most]:
        reached = row["limit"] / row["seconds"] if row["seconds"] else 0
        print(f"{'':20} {row['part']:16} {row['operation']:30} {row['calls']:6} {1e3 * row['seconds']:9.3f} "
              f"{1e3 * row['limit']:9.3f} {100 * reached:7.1f}%")
    print(f"{'':20} {max(0, len(rows) - most)} more rows")


def compare(folder):
    print(f"{'lengths':10} {'ours, tokens/s':>15} {'PyTorch':>9} {'ratio':>6} {'ours, GB':>9} {'PyTorch':>8} {'ratio':>6}")
    for name in ("uniform", "ragged"):
        ours, theirs = load(folder, name + ".json"), load(folder, name + ".torch.json")
        if ours is None or theirs is None:
            print(f"{name:10} no result of {'vl2' if ours is None else 'PyTorch'}")
            continue
        if ours["tokens"] != theirs["tokens"]:
            print(f"{name:10} {ours['tokens']} tokens are not {theirs['tokens']}: the two do not compute the same")
            continue
        taken, other = ours.get("device_bytes", 0), theirs.get("device_bytes", 0)
        print(f"{name:10} {ours['tokens_per_s']:15.0f} {theirs['tokens_per_s']:9.0f} "
              f"{ours['tokens_per_s'] / theirs['tokens_per_s']:6.2f} {taken / 1e9:9.1f} {other / 1e9:8.1f} "
              f"{taken / other if other else 0:6.2f}  ({'compiled' if theirs['compiled'] else 'eager'})")


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("ops", "train", "compare"):
        sys.exit(__doc__)
    {"ops": ops, "train": train, "compare": compare}[sys.argv[1]](sys.argv[2])
