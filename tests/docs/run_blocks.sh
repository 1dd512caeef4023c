#!/usr/bin/env bash
# Runs a page's blocks in their order, in a scratch folder: "sh" blocks must succeed; of "console" blocks, each "$ command" must fail and say
# every line that stands below it; a block behind "<!-- file: NAME -->" becomes that file. The scratch folder holds small real things under
# the page's names. Usage: run_blocks.sh VL2 SOURCE_DIR PAGE; works in the current folder.
set -euo pipefail
vl2=$1 source=$2 page=$3
[ "$("$vl2" --version | grep -c 'media: yes')" = 1 ] || { echo "skipped: this build has no media libraries"; exit 77; }
work=$(mktemp -d "$PWD/docs.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/bin" "$work/page/my-videos" "$work/page/models"
ln -s "$vl2" "$work/bin/vl2"
export PATH="$work/bin:$PATH"

# The page's names.
media=$source/examples/media videos=$work/page/my-videos
cp "$media/bikes.mp4" "$videos/kitchen.mp4"
cp "$media/carphone_vfr.mp4" "$videos/call.mp4"
cp "$media/three_frames.mp4" "$videos/street.mp4"
cp "$media/home.jpg" "$videos/house.jpg"
cd "$work"
cat > start.json <<'LIST'
[{"conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi"}]}]
LIST
cat > start.yaml <<CONFIG
stage: finetune
model: {path: $source/examples/model}
data: {sources: [{annotations: start.json, media: ., shards: start-shards}]}
train: {trainable: [vision_tower, connector, llm], steps: 1, global_batch: 1, dtype: f32}
optim: {lr: 0}
output: start
CONFIG
vl2 pack start.yaml && vl2 train start.yaml && vl2 convert --from start --to page/models/VideoLLaMA2-7B --format hf

# Every block becomes a file NUMBER.LANGUAGE, or NUMBER.file with the name of its file in NUMBER.name.
mkdir blocks
awk -v folder=blocks '
    /^```/ && inside { inside = 0; close(out); next }
    /^```/ { inside = 1; number++; language = substr($0, 4)
             out = sprintf("%s/%03d.%s", folder, number, name ? "file" : language)
             if (name) { print name > sprintf("%s/%03d.name", folder, number) }
             printf "" > out; name = ""; next }
    inside { print > out; next }
    match($0, /^<!-- file: .* -->$/) { name = substr($0, 12, length($0) - 15) }
' "$page"

# A command that must fail, and what it has to say.
refused() {
    local command=$1 said line
    shift
    echo "+ $command"
    if said=$(bash -c "$command" 2>&1); then echo "this should have failed"; exit 1; fi
    for line in "$@"; do
        grep -qF -- "$line" <<< "$said" || { echo "'$line' is not in: $said"; exit 1; }
    done
}

console() {
    local command='' line lines=()
    while IFS= read -r line; do
        if [ "${line:0:2}" != '$ ' ]; then lines+=("$line"); continue; fi
        if [ -n "$command" ]; then refused "$command" "${lines[@]}"; fi
        command=${line:2} lines=()
    done < "$1"
    refused "$command" "${lines[@]}"
}

cd page
ran=0 refusals=0
for block in ../blocks/*; do
    case $block in
    *.file) cp "$block" "$(cat "${block%.file}.name")" ;;
    *.sh) bash -euxc "$(cat "$block")"; ran=$((ran + 1)) ;;
    *.console) console "$block"; refusals=$((refusals + 1)) ;;
    *.name) ;;
    *) echo "a block of an unknown kind: $block"; exit 1 ;;
    esac
done
echo "$ran blocks of commands and $refusals of refused ones"
[ "$ran" -ge 7 ] && [ "$refusals" -ge 7 ]
# What was exported is what was trained.
! cmp -s models/my-videos/model.safetensors models/VideoLLaMA2-7B/model.safetensors
