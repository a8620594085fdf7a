#!/usr/bin/env bash
# The program on a device, an emulated GPU: equal bytes however it trains, and what it says and leaves when the device
# is missing, full or lost.
set -uo pipefail
program=$TANDEM_BINARY_DIR/tests/tandem_emulated
skip() {
  echo "SKIPPED: $1"
  exit 77
}
[[ -x $program ]] || skip "there is no tandem_emulated"
command -v python3 >/dev/null || skip "python3 is not installed"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
failures=0
wrong() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}
small=(--device cuda --dataset digits -b 16 -q)
dense=(--layers "dense:8,bn,relu,dense:10")

# expect STATUS TEXT COMMAND...: the exit status, and a text on stdout or stderr. With a status other than 0, stderr is
# one sentence in one line.
expect() {
  local status=$1 text=$2 output got
  shift 2
  output=$("$@" 2>stderr)
  got=$?
  output+=$(cat stderr)
  [[ $got == "$status" ]] || wrong "$*: exit $got instead of $status: $output"
  [[ $output == *"$text"* ]] || wrong "$*: no '$text' in: $output"
  ((status == 0 || $(wc -l <stderr) == 1)) || wrong "$*: more than one line on stderr: $(cat stderr)"
}
train() {  # OUT FLAGS...
  expect 0 "" "$program" train "${small[@]}" --out "$@"
}
same() {
  cmp -s "$1" "$2" || wrong "$1 and $2 differ"
}
# Every record of an unfinished run is whole, and there are at least so many.
readable() {
  python3 - "$@" <<'EOP' || wrong "what $1 holds is not readable"
import csv, json, os, sys
run, least = sys.argv[1], int(sys.argv[2])
for name in ("config.json", "env.json"):
    json.load(open(os.path.join(run, name)))
text = open(os.path.join(run, "metrics.jsonl")).read()
records = [json.loads(row) for row in text.splitlines()]
assert text.endswith("\n") and len(records) >= least, records
assert len({len(row) for row in csv.reader(open(os.path.join(run, "metrics.csv")))}) == 1
EOP
}

expect 0 "cuda:0 emulated GPU" "$program" devices

# Training: eight steps as a graph, op by op, again, and step by step: eight do not fit between validations.
w1=(--model w1 --max-steps 18 --eval-every 9 --log-every 1)
train w1 "${w1[@]}"
train w1_eager "${w1[@]}" --eager
train w1_again "${w1[@]}"
TANDEM_CUDA_POOL=off train w1_unpooled "${w1[@]}"
train w1_checked "${w1[@]}" --check-plan 1
train w1_single --model w1 --max-steps 18 --eval-every 6 --log-every 1
conv=(--layers "conv:4:k=5:s=4,bn,relu,dropout:0.2,dense:10" --optimizer adam --shift 1 --clip 1 --max-steps 16)
train conv "${conv[@]}"
train conv_eager "${conv[@]}" --eager
train conv_single "${conv[@]}" --eval-every 4
for run in w1_eager w1_again w1_unpooled w1_checked w1_single; do same w1/model.safetensors $run/model.safetensors; done
for run in conv_eager conv_single; do same conv/model.safetensors $run/model.safetensors; done
for run in w1 w1_single; do
  python3 -c "
import json, sys
for row in map(json.loads, open(sys.argv[1] + '/metrics.jsonl')):
    print([row.get(name) for name in ('step', 'split', 'loss', 'accuracy', 'lr')]) if row['split'] == 'train' else 0
" $run >$run.steps
done
[[ $(wc -l <w1.steps) == 18 ]] && same w1.steps w1_single.steps

# A smaller batch at the end of an epoch.
tail=(--layers "avgpool:7,dense:8,bn,relu,dense:10" --max-steps 24 --last-batch keep)
expect 0 "" "$program" train "${small[@]}" "${tail[@]}" -b 5400 --out tail
expect 0 "" "$program" train "${small[@]}" "${tail[@]}" -b 5400 --eval-every 4 --out tail_single
same tail/model.safetensors tail_single/model.safetensors
cmp -s w1/model.safetensors conv/model.safetensors && wrong "cmp finds all files the same"

NVIDIA_TF32_OVERRIDE=1 expect 0 "cuBLAS does not heed --precision" "$program" train "${small[@]}" "${dense[@]}" \
  --max-steps 1 --out override
[[ $("$program" version) == *"CUDA      13.0"* ]] || wrong "version: $("$program" version)"

# A pair, twice, and alone: two threads train on the device at once.
for out in pair pair_again; do
  expect 0 "A/A difference: 0" "$program" compare "${small[@]}" "${dense[@]}" --seeds 1 --max-steps 8 --out $out
done
train alone "${dense[@]}" --max-steps 8
for arm in seed1_bn seed1_plain; do same pair/$arm/model.safetensors pair_again/$arm/model.safetensors; done
same pair/seed1_bn/model.safetensors alone/model.safetensors

# A model trained there is read on the CPU, and the other way round.
expect 0 "accuracy" "$program" eval alone --dataset digits --device cpu
expect 0 "accuracy" "$program" eval alone --dataset digits --device cuda

# No such device.
export TANDEM_EMULATED_GPUS=0
expect 0 "no CUDA-capable device is detected" "$program" devices
expect 7 "no CUDA-capable device is detected" "$program" train "${small[@]}" --max-steps 2 --out none
unset TANDEM_EMULATED_GPUS
expect 7 "this machine has 1 GPU" "$program" train --dataset digits --device cuda:3 --max-steps 2 --out none
[[ ! -e none ]] || wrong "a run without a device leaves a folder"

# Not enough memory.
long=("$program" train "${small[@]}" "${dense[@]}" --max-steps 300 --eval-every 20)
TANDEM_EMULATED_MIB=8 expect 6 "use a smaller batch or model" "${long[@]}" --out full
[[ ! -e full ]] || wrong "a run without memory leaves a folder"

# The device is lost: before training an earlier run stays as it was; in training the records stay, and the model of the
# last validation, which the CPU reads.
cp -r alone earlier
TANDEM_EMULATED_FAULT_AFTER=30 TANDEM_EMULATED_FAULT=719 expect 7 "cudaErrorLaunchFailure" \
  "${long[@]}" --out earlier --force
diff -r alone earlier || wrong "a run that never began has changed an earlier one"
for calls in 600 900 1300; do
  TANDEM_EMULATED_FAULT_AFTER=$calls TANDEM_EMULATED_FAULT=719 expect 7 "cudaErrorLaunchFailure" \
    "${long[@]}" --out lost_$calls
done
readable lost_900 2
readable lost_1300 5
python3 -c "
import json
result = json.load(open('lost_1300/RESULT.json'))
assert result['status'] == 'failed' and result['model_step'] >= 20 and 'cudaErrorLaunchFailure' in result['message']
assert json.load(open('lost_1300/env.json'))['dataset']['train_sha256']
" || wrong "RESULT.json or env.json of a lost device"
expect 0 "accuracy" "$program" eval lost_1300 --dataset digits --device cpu
# Wherever it is lost, an end without a model leaves no RESULT.json, and one with a model names it.
kept=0 finished=0
for ((calls = 500; calls < 3000 && !finished; calls += 60)); do
  output=$(TANDEM_EMULATED_FAULT_AFTER=$calls TANDEM_EMULATED_FAULT=719 "$program" train "${small[@]}" "${dense[@]}" \
    --max-steps 40 --eval-every 20 --out lost --force 2>&1)
  code=$?
  if ((code == 0)); then
    finished=1
  elif ((code != 7)); then
    wrong "lost after $calls calls: exit code $code: $output"
  elif [[ -e lost/model.safetensors || -e lost/RESULT.json ]]; then
    kept=$((kept + 1))
    grep -q '"status": "failed"' lost/RESULT.json || wrong "lost after $calls calls: RESULT.json does not say so"
    [[ $output == *"keeps the model of step"[\ ][24]0* ]] || wrong "lost after $calls calls: $output"
  fi
done
((kept > 2 && finished)) || wrong "of the lost runs $kept keep a model, finished: $finished"
# Memory may do for a batch of training and not for one of validation.
TANDEM_EMULATED_MIB=75 expect 6 "keeps the model of step 8" "$program" train "${small[@]}" \
  --layers conv:16:k=3:s=2,bn,relu,dense:10 --max-steps 8 --out short
expect 0 "accuracy" "$program" eval short --dataset digits --device cpu
expect 7 "--from lost_1300" env TANDEM_EMULATED_FAULT_AFTER=1300 TANDEM_EMULATED_FAULT=719 \
  "${long[@]}" --out lost_1300 --force
expect 0 "" "${long[@]}" --out lost_900 --force

exit $((failures > 0))
