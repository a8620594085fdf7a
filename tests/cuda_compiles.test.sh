#!/usr/bin/env bash
# nvcc takes every file of cuda/ for sm_90 without a warning, and no kernel spills registers or has a stack.
set -uo pipefail
PATH=$PATH:/usr/local/cuda/bin
if ! command -v nvcc >/dev/null; then
  echo "SKIPPED: there is no nvcc"
  exit 77
fi
out=$TANDEM_BINARY_DIR/cuda_compiles
mkdir -p "$out"
compile() {
  nvcc -std=c++20 -arch=sm_90 -fmad=false -DTANDEM_BACKEND=cuda -DTANDEM_CUBLAS_DIR='""' --resource-usage \
    -I"$TANDEM_BINARY_DIR/include" -Werror all-warnings -Xcompiler=-Wall,-Wextra,-Werror,-fPIC -c "$1" -o "$2/${1##*/}.o" 2>&1
}
export -f compile
export TANDEM_BINARY_DIR
printf '%s\0' "$TANDEM_SOURCE_DIR"/cuda/*.cu |
  xargs -0 -P 2 -I{} bash -c 'compile "$1" "$2" >"$2/${1##*/}.log" || { echo "FAILED: $1"; cat "$2/${1##*/}.log"; exit 1; }' _ {} "$out" || exit 1
kernels=$(cat "$out"/*.log | grep -c 'bytes stack frame')
spilling=$(grep -H 'bytes stack frame' "$out"/*.log | grep -v ' 0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads')
echo "$kernels kernels compiled for sm_90"
[[ -z $spilling ]] || { echo "FAILED: kernels with a stack or spilled registers:"; echo "$spilling"; exit 1; }
((kernels > 200)) || { echo "FAILED: expected more than 200 kernels, is --resource-usage still understood?"; exit 1; }
