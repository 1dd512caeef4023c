#!/usr/bin/env bash
# Real pictures and videos through pack, train and generate: overfitted, the model gives every answer from the original files, and mostly
# other answers when the files change places. Usage: overfit.sh VL2 SOURCE_DIR; works in the current folder.
set -euo pipefail
vl2=$1 source=$2
[ "$("$vl2" --version | grep -c 'media: yes')" = 1 ] || { echo "skipped: this build has no media libraries"; exit 77; }
work=$(mktemp -d "$PWD/overfit.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$source"
settings=(configs/examples/overfit.yaml "output=$work/run")
sed "s|runs/examples/shards|$work/shards|" configs/examples/overfit.yaml > "$work/overfit.yaml"
settings[0]=$work/overfit.yaml
"$vl2" pack "${settings[@]}"
"$vl2" train "${settings[@]}"

mapfile -t rows < <(sed -nE 's/.*"(image|video)": "([^"]+)".*"gpt", "value": "([^"]*)".*/\1|\2|\3/p' examples/media/captions.json)
count=${#rows[@]} right=0 swapped=0
[ "$count" -ge 10 ] || { echo "only $count annotations were found"; exit 1; }
for i in $(seq 0 $((count - 1))); do
    IFS='|' read -r kind file answer <<< "${rows[$i]}"
    # Another file of the same kind: the next one, around.
    for step in $(seq 1 "$count"); do
        IFS='|' read -r other_kind other_file _ <<< "${rows[$(((i + step) % count))]}"
        [ "$other_kind" = "$kind" ] && break
    done
    said=$("$vl2" generate --model "$work/run" "--$kind" "examples/media/$file" --prompt "What is shown?" --as-trained)
    said_swapped=$("$vl2" generate --model "$work/run" "--$kind" "examples/media/$other_file" --prompt "What is shown?" --as-trained)
    echo "$file: $said"
    [ "$said" = "$answer" ] && right=$((right + 1))
    [ "$said_swapped" = "$answer" ] && swapped=$((swapped + 1))
done
echo "right: $right of $count; with the files swapped: $swapped of $count"
[ "$right" = "$count" ] && [ $((2 * swapped)) -lt "$count" ]
