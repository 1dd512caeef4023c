#!/usr/bin/env bash
# Real pictures, videos and sounds through pack, train and generate: overfitted, the model gives every answer from the original files, and
# mostly other answers when files of a kind change places. Usage: overfit.sh VL2 SOURCE_DIR CONFIG; works in the current folder.
set -euo pipefail
vl2=$1 source=$2 config=$3
[ "$("$vl2" --version | grep -c 'media: yes')" = 1 ] || { echo "skipped: this build has no media libraries"; exit 77; }
work=$(mktemp -d "$PWD/overfit.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$source"
sed -E "s|runs/examples/(shards[a-z-]*)|$work/\1|" "$config" > "$work/overfit.yaml"
settings=("$work/overfit.yaml" "output=$work/run")
"$vl2" pack "${settings[@]}"
"$vl2" train "${settings[@]}"

annotations=$(sed -nE 's/.*annotations: ([^,]+),.*/\1/p' "$config")
# option|file|sound|kind|question|answer
mapfile -t rows < <(sed -nE 's/.*"(image|video|audio)": "([^"]+)"(, "va": (true))?.*"kind": "([^"]+)".*<[a-z]+>\\n([^"]*)".*"gpt", "value": "([^"]*)".*/\1|\2|\4|\5|\6|\7/p' "$annotations")
count=${#rows[@]} right=0 swapped=0
[ "$count" = "$(grep -c '"id"' "$annotations")" ] || { echo "only $count annotations were understood"; exit 1; }

ask() {
    "$vl2" generate --model "$work/run" "--$1" "examples/media/$2" ${3:+--sound} --prompt "$4" --as-trained
}

for i in $(seq 0 $((count - 1))); do
    IFS='|' read -r option file sound kind question answer <<< "${rows[$i]}"
    # Another file of the same kind: the next one, around.
    for step in $(seq 1 "$count"); do
        IFS='|' read -r _ other_file _ other_kind _ <<< "${rows[$(((i + step) % count))]}"
        [ "$other_kind" = "$kind" ] && break
    done
    said=$(ask "$option" "$file" "$sound" "$question")
    said_swapped=$(ask "$option" "$other_file" "$sound" "$question")
    echo "$kind $file: $said / with $other_file: $said_swapped"
    [ "$said" = "$answer" ] && right=$((right + 1))
    [ "$said_swapped" = "$answer" ] && swapped=$((swapped + 1))
done
echo "right: $right of $count; with the files swapped: $swapped of $count"
[ "$right" = "$count" ] && [ $((2 * swapped)) -lt "$count" ]
