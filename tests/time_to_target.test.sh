#!/usr/bin/env bash
# apps/bench/time_to_target: its help, and its arithmetic on a stand-in.
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

# A Tandem that takes twice its seed in seconds, and whose seed 5 misses the target.
cat >"$folder/tandem" <<'EOF'
#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in --seed) seed=$2 ;; --out) out=$2 ;; --lr) lr=$2 ;; esac
  shift
done
mkdir "$out"
echo '{"cpu": "a CPU", "cpu_path": "avx2", "compiler": "a compiler", "commit": "0"}' >"$out/env.json"
[ "$seed" = 5 ] && reached=false || reached=true
echo '{"seconds_since_start": '$((2 * seed))', "target_reached": '$reached', "steps": '"${lr:-7}"',
       "validation_accuracy": 0.993, "test_accuracy": 0.9'$((88 + seed))'}'
EOF
chmod +x "$folder/tandem"
table=$("$driver" --tandem "$folder/tandem" --data "$folder" --seeds 1..5 --json "$folder/all.json" -- --lr 3)
expect "| 1 | 2.00" "$table"
expect "| 3 | 99.30 | 98.90 |" "$table"
expect "| 5 | missed" "$table"
expect "lowest 98.90 %, 4 of 5 runs at least 99 %" "$table"
expect "mean 6.00, sd 1.63" "$table"
expect "a CPU, 2 threads, avx2 kernels, a compiler, commit 0." "$table"
expect '"steps": 3' "$(cat "$folder/all.json")"
expect "No figure" "$("$driver" --tandem "$folder/tandem" --data "$folder" --seeds 1..2)"
exit $((failures > 0))
