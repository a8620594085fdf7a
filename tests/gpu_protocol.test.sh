#!/usr/bin/env bash
# tests/run --gpu without a GPU: on the emulated programs, and its other steps on stand-ins.
set -euo pipefail
skip() {
  echo "SKIPPED: $1"
  exit 77
}
[[ -x $TANDEM_BINARY_DIR/tests/tandem_emulated ]] || skip "there is no tandem_emulated"
command -v python3 >/dev/null || skip "python3 is not installed"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failures=0
expect() {  # TEXT OUTPUT
  [[ $2 == *"$1"* ]] || { echo "FAILED: expected '$1' in: $2"; failures=$((failures + 1)); }
}

"$TANDEM_SOURCE_DIR/tests/run" --gpu --emulated "$TANDEM_BINARY_DIR" --out "$folder/out" | tee "$folder/table" ||
  failures=$((failures + 1))
expect "nothing here ran on a GPU" "$(cat "$folder/table")"
python3 - "$folder" <<'EOP' || failures=$((failures + 1))
import json, sys
steps = json.load(open(sys.argv[1] + "/out/gpu.json"))["steps"]
table = open(sys.argv[1] + "/table").read()
status = {s["name"]: s["status"] for s in steps}
assert all(len(row) <= 80 for row in table.splitlines()), "the table is too wide"
assert all(("%-22s %-7s" % item) in table for item in status.items()), "the table is not the records"
assert all(s["remark"] for s in steps), "a step says nothing"
for name in ("op table", "vectors", "bitwise w1", "bitwise w2", "cpu-cuda w2 fp32", "cpu-cuda w2 float64"):
    assert status[name] == "passed", name
for name in ("memcheck", "accuracy w3", "bench"):
    assert status[name] == "not run", name
EOP

# What only a GPU has, on stand-ins: a build that fails, a sanitizer, a program and a peer to measure.
code=0
mkdir "$folder/bin"
stand_in() {  # NAME SCRIPT
  printf '#!/bin/sh\n%s\n' "$2" >"$folder/bin/$1"
  chmod +x "$folder/bin/$1"
}
stand_in cmake 'echo "no compiler" >&2; exit 1'
stand_in nvidia-smi 'echo "A GPU, 9.0"'
broken=$(PATH=$folder/bin:$PATH "$TANDEM_SOURCE_DIR/tests/run" --gpu --out "$folder/broken") || code=$?
expect 1 "$code"
expect "no compiler" "$broken"
expect "bench                  not run   0.0  there is no build" "$broken"

stand_in compute-sanitizer 'case "$*" in
  *memcheck*) echo "========= ERROR SUMMARY: 0 errors" ;;
  *racecheck*w2*) echo "========= RACECHECK SUMMARY: 1 hazard displayed"; exit 99 ;;
  *racecheck*) echo "========= RACECHECK SUMMARY: 0 hazards displayed" ;;
  *initcheck*) echo "========= Error: Device not supported"; exit 1 ;;
  *) exec sleep 60 ;;
esac'
stand_in program 'case "$*" in
  *bf16*off*|*off*bf16*) echo "tandem: no such kernel" >&2; exit 1 ;;
  *) echo "{\"ms_per_step\": 0.25}" ;;
esac'
cat >"$folder/peer.py" <<'EOP'
import json
print("warming up")
print(json.dumps({"workload": "W2", "batch": 128, "arms": "bn+nobn", "mode": "cudagraph", "precision": "tf32",
                  "us_per_step": 81.5}))
EOP
PATH=$folder/bin:$PATH PYTHONDONTWRITEBYTECODE=1 python3 - "$TANDEM_SOURCE_DIR/tests/gpu" "$folder" <<'EOP' ||
import sys, time, types
sys.path.insert(0, sys.argv[1])
import bench, checks, training
from steps import Step, line
folder = sys.argv[2]
protocol = types.SimpleNamespace(emulated=False, program=folder + "/bin/program", tests=folder + "/bin/program",
                                 peer=folder + "/peer.py", scratch=lambda *names: folder + "/" + "-".join(names))

def run(seconds, work, *arguments):
    record = Step("a step", seconds, lambda step: work(protocol, step, *arguments)).run(time.monotonic() + 60)
    return record["status"], record["remark"], record

assert run(9, checks.sanitize, "memcheck")[0] == "passed"
status, remark, _ = run(9, checks.sanitize, "racecheck")
assert status == "failed" and remark.startswith("w2: exit code 99, RACECHECK SUMMARY: 1 hazard"), remark
status, remark, _ = run(9, checks.sanitize, "initcheck")
assert status == "not run" and "none of w1, w2, w3, ops clean, else refused: Error: Device not" in remark, remark
status, remark, record = run(1, checks.sanitize, "synccheck")
assert status == "failed" and "w1: no end" in remark and record["seconds"] < 5, remark
status, remark, record = run(60, bench.bench)
assert status == "failed", remark
assert "57 measured, 0 left out, 6 failed; peer: 3 measured; exit code 1: tandem: no such" in remark, remark
table = bench.table(record["details"])
assert "w2           128  pair  cudagraph               -       81.5          -" in table, table
assert "w3          4096  off   tandem              250.0      250.0          -" in table, table
assert all(len(row) <= 80 for row in (table + "\n" + line(record)).splitlines()), table

# Differences: found where they are, and a NaN is one.
def judge(ours, theirs):
    def model(protocol, step, out, *flags):
        return ours if out.endswith("cpu") else theirs
    training.train, training.tensors = model, lambda model: model
    return run(9, lambda *a: training.judged(training.differences(*a, "x", ((), ())), 1e-5))[:2]

assert judge({"a": [3.0, 4.0], "b": [1.0]}, {"a": [3.0, 4.00004], "b": [1.0]})[0] == "passed"
assert judge({"a": [3.0, 4.0], "b": [1.0]}, {"a": [3.0, 4.0], "b": [1.00002]}) == (
    "failed", "largest difference 2e-05 of the norm (b), bound 1e-05")
assert judge({"a": [0.0]}, {"a": [float("nan")]})[0] == "failed"
EOP
  failures=$((failures + 1))
exit $((failures > 0))
