#!/usr/bin/env bash
# apps/bench/time_to_target: its help, what it refuses, and its arithmetic on a stand-in.
set -euo pipefail
if ! command -v python3 >/dev/null; then
  echo "SKIPPED: python3 is not installed"
  exit 77
fi
driver=$TANDEM_SOURCE_DIR/apps/bench/time_to_target
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failures=0
# expect TEXT OUTPUT: a text that the output must hold.
expect() {
  [[ $2 == *"$1"* ]] || { echo "FAILED: expected '$1' in: $2"; failures=$((failures + 1)); }
}

expect "without the fastest and the slowest" "$("$driver" --help)"

# A Tandem that takes twice its seed in seconds; seed 5 misses the target, seed 9 diverges.
touch "$folder/train-images-idx3-ubyte.gz"
cat >"$folder/tandem" <<'EOF'
#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in --seed) seed=$2 ;; --out) out=$2 ;; --lr) lr=$2 ;; esac
  shift
done
[ "$seed" = 9 ] && exit 5
mkdir "$out"
echo '{"cpu": "a CPU", "cpu_path": "avx2", "compiler": "a compiler", "commit": "0"}' >"$out/env.json"
[ "$seed" = 5 ] && reached=false || reached=true
echo '{"seconds_since_start": '$((2 * seed))', "target_reached": '$reached', "steps": '"${lr:-7}"',
       "validation_accuracy": 0.993, "test_accuracy": 0.9'$((88 + seed))', "out": "'"$out"'"}'
EOF
chmod +x "$folder/tandem"
# runs FLAGS: the driver on the stand-in.
runs() {
  "$driver" --tandem "$folder/tandem" --data "$folder" --tries 1 "$@"
}
table=$(runs --seeds 1..5 --json "$folder/all.json" -- --lr 3)
expect "| 1 | 2.00" "$table"
expect "| 3 | 99.30 | 98.90 |" "$table"
expect "| 5 | missed" "$table"
expect "lowest 98.90 %, 4 of 5 runs at least 99 %" "$table"
expect "mean 6.00, sd 2.00" "$table"
expect "a CPU, 2 threads, avx2 kernels, a compiler, commit 0." "$table"
expect '"steps": 3' "$(cat "$folder/all.json")"
! grep '"out"' "$folder/all.json" || { echo "FAILED: the path of a folder that is gone"; failures=$((failures + 1)); }
expect "No figure" "$(runs --seeds 1..2)"
expect "| 4 | 8.00" "$(runs --seeds 4)"

for seeds in 5..1 a..b; do
  expect "--seeds: expected one seed or FIRST..LAST, such as 1..10, got '$seeds'" "$(runs --seeds $seeds 2>&1 || true)"
done
expect "--tandem: expected a program, got '$folder'" "$(runs --tandem "$folder" 2>&1 || true)"
code=0
runs --seeds 9 >"$folder/log" 2>&1 || code=$?
expect "5" "$code"
expect "seed 9: exit 5" "$(cat "$folder/log")"
exit $((failures > 0))
