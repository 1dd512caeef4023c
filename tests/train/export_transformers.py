"""What `vl2 convert` exports after 30 training steps, loaded by Hugging Face transformers, gives our numbers.

Usage: export_transformers.py VL2 SOURCE_DIR (works in the current folder). Exit code 77 (skipped) where torch,
transformers or safetensors are missing. Trains the tiny model of tests/golden/train on texts and pictures, exports it,
and compares with `vl2 parity` of the run: the language model on a text, the vision tower on pixels. The exported folder
itself has to give the bits of the run, and so has a checkpoint made of it.
"""
import json
import os
import subprocess
import sys
import tempfile

try:
    import torch
    import transformers
    from safetensors.torch import load_file, save_file
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

TOLERANCE = 1e-4
TOWER = "model.vision_tower.vision_tower."


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: exit code {done.returncode}: {done.stderr}")
    return done.stdout


def distance(found, wanted):
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def train(vl2, source, folder):
    golden = os.path.join(source, "tests/golden/train")
    settings = os.path.join(folder, "run.yaml")
    with open(settings, "w") as file:
        file.write(
            "stage: finetune\n"
            f"model: {{path: {golden}/model_vl}}\n"
            "data:\n"
            f"  sources: [{{annotations: {golden}/data/finetune.json, media: {golden}/data, shards: {folder}/shards}}]\n"
            "  frames: 4\n"
            "  protocol: vl2-main\n"
            "train: {steps: 30, global_batch: 16, dtype: f32}\n"
            "optim: {lr: 1.0e-3, warmup_ratio: 0.03}\n"
            "threads: 1\n"
            f"output: {folder}/run\n")
    run(vl2, "pack", settings)
    run(vl2, "train", settings)
    return os.path.join(golden, "model_vl"), os.path.join(folder, "run")


def parity(vl2, model, tensors, folder, name):
    source, result = (os.path.join(folder, f"{name}.{end}.safetensors") for end in ("in", "out"))
    save_file(tensors, source)
    run(vl2, "parity", "--model", model, "--input", source, "--output", result)
    return load_file(result)


def language_model(config, tensors):
    """The plain class of the family, filled with the exported tensors; every one of its own has to be there."""
    kinds = {"videollama2_mistral": (transformers.MistralConfig, transformers.MistralForCausalLM),
             "videollama2_qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM)}
    make_config, make_model = kinds[config["model_type"]]
    model = make_model(make_config(**{key: value for key, value in config.items() if key != "model_type"}))
    own = {key: value for key, value in tensors.items()
           if key == "lm_head.weight" or key.startswith(("model.embed_tokens.", "model.layers.", "model.norm."))}
    print(model.load_state_dict(own, strict=True), len(own), "tensors")
    return model.eval().float()


def vision_tower(folder, tensors):
    tower = transformers.CLIPVisionModel(transformers.CLIPVisionConfig.from_pretrained(folder))
    own = {key[len(TOWER):]: value for key, value in tensors.items() if key.startswith(TOWER)}
    print(tower.load_state_dict(own, strict=True), len(own), "tensors")
    return tower.eval().float()


def main(vl2, source, folder):
    base, trained = train(vl2, source, folder)
    exported, again = os.path.join(folder, "exported"), os.path.join(folder, "checkpoint")
    run(vl2, "convert", "--from", trained, "--to", exported, "--verify")
    run(vl2, "convert", "--from", exported, "--to", again, "--verify")
    with open(os.path.join(exported, "config.json")) as file:
        config = json.load(file)
    tensors = load_file(os.path.join(exported, "model.safetensors"))
    changed = sum(not torch.equal(tensors[key], value)
                  for key, value in load_file(os.path.join(base, "model.safetensors")).items())
    print(f"{changed} of {len(tensors)} tensors differ from those before training")

    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, config["vocab_size"], (40,), generator=generator)
    place = os.path.join(exported, config["mm_vision_tower"])
    tower, model = vision_tower(place, tensors), language_model(config, tensors)
    side = tower.config.image_size
    pixels = torch.randn((1, 3, side, side), generator=generator)
    text = {"input_ids": ids}
    picture = {"input_ids": torch.cat([ids[:3], torch.tensor([-200]), ids[3:]]), "pixel_values": pixels}
    ours = {name: [parity(vl2, path, what, folder, f"{name}-{i}") for i, what in enumerate((text, picture))]
            for name, path in (("run", trained), ("exported", exported), ("checkpoint", again), ("base", base))}
    with torch.no_grad():
        logits = model(ids[None]).logits[0]
        hidden = tower(pixels, output_hidden_states=True).hidden_states[config["mm_vision_select_layer"]][0, 1:]

    errors = {"logits": distance(ours["run"][0]["logits"], logits),
              "vision features": distance(ours["run"][1]["vision_features"][0], hidden)}
    apart = distance(ours["base"][0]["logits"], logits)
    print(f"relative distance to transformers: {errors}; of the model before training: {apart:.3g}")
    same = all(torch.equal(ours["run"][i][key], ours[name][i][key])
               for name in ("exported", "checkpoint") for i in (0, 1) for key in ours["run"][i])
    print(f"the exported folder and its checkpoint give the bits of the run: {same}")
    return changed > 0 and same and apart > TOLERANCE and all(error <= TOLERANCE for error in errors.values())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=os.getcwd()) as scratch:
        sys.exit(0 if main(os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), scratch) else 1)
