#!/usr/bin/env bash
# apps/bench/against_torch without torch: its help, its refusal of missing data, and its arithmetic on stand-ins.
set -euo pipefail
if ! command -v python3 >/dev/null; then
  echo "SKIPPED: python3 is not installed"
  exit 77
fi
driver=$TANDEM_SOURCE_DIR/apps/bench/against_torch
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failures=0
# expect TEXT OUTPUT: a text that the output must hold.
expect() {
  [[ $2 == *"$1"* ]] || { echo "FAILED: expected '$1' in: $2"; failures=$((failures + 1)); }
}

expect "times as fast" "$("$driver" --help)"
expect "expected a folder with train-images" "$("$driver" --data "$folder" 2>&1 || true)"

# A Tandem of 2 ms a step (a pair 3 ms, in float64 4 ms), and a torch of 5 ms (in float64 12 ms).
touch "$folder/train-images-idx3-ubyte.gz"
cat >"$folder/tandem" <<'EOF'
#!/bin/sh
[ "$1" = version ] && echo "BLAS      OpenBLAS 0.3.21 SkylakeX" && exit
case "$*" in *"--precision fp64"*) ms=4 ;; *"--bn pair"*) ms=3 ;; *) ms=2 ;; esac
echo '{"ms_per_step": '$ms', "peak_rss_mb": 50, "first_step_s": 0.1, "version": "0"}'
EOF
cat >"$folder/python" <<'EOF'
#!/bin/sh
[ "$OPENBLAS_CORETYPE" = SkylakeX ] || exit 1
case "$*" in *'"fp64": true'*) ms=12 ;; *) ms=5 ;; esac
echo '{"ms": '$ms', "rss_mb": 500, "first_step_s": 1, "version": "torch 0"}'
EOF
chmod +x "$folder/tandem" "$folder/python"
# compare FLAGS: the driver on the stand-ins.
compare() {
  "$driver" --tandem "$folder/tandem" --python "$folder/python" --data "$folder" --rounds 2 --tries 1 "$@"
}
table=$(compare --workloads w1,w3 --bn on,pair --json "$folder/all.json")
expect "| w1 BN | 1 | 2.000 [2.000, 2.000] | torch 0 1t: 5.000 [5.000, 5.000] | 2.50 [2.50, 2.50]" "$table"
expect "| w3 BN | 2 |" "$table"
expect "torch 0 2 processes: 5.000 [5.000, 5.000] | 1.67 [1.67, 1.67]" "$table"
expect "50 / 1000 MiB: 1/20.0 | 0.10 / 1.00" "$table"
count=$(python3 -c 'import json, sys; print(len(json.load(open(sys.argv[1]))["comparisons"]))' "$folder/all.json")
expect "5" "$count"

table=$(compare --workloads w1 --bn on --fp64 --json "$folder/all.json")
expect "| w1 BN float64 | 1 | 4.000 [4.000, 4.000] | torch 0 1t: 12.000 [12.000, 12.000] | 3.00 [3.00, 3.00]" "$table"
expect '"fp64": true' "$(cat "$folder/all.json")"

printf '#!/bin/sh\nprintf "Traceback:\\nno torch here\\n" >&2; exit 1\n' >"$folder/python"
told=$(compare 2>&1 || true)
expect "$folder/python cannot do 'import torch': no torch here" "$told"
[[ $told != *Traceback* ]] || { echo "FAILED: a traceback: $told"; failures=$((failures + 1)); }
exit $((failures > 0))
