#!/usr/bin/env bash
# What nvcc makes of every kernel for sm_90: no warning, no stack, no spilled register, and no more registers and shared
# memory than kernel_ledger.txt allows. More there is a loss of speed that nothing else shows without a GPU.
#   tests/kernel_ledger.test.sh --write   rewrites the ledger
set -euo pipefail
export LC_ALL=C PATH=$PATH:/usr/local/cuda/bin
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if ! command -v nvcc >/dev/null; then
  echo "SKIPPED: there is no nvcc"
  exit 77
fi
ledger=$PWD/tests/kernel_ledger.txt
export TANDEM_BINARY_DIR=${TANDEM_BINARY_DIR:-$PWD/build/release}
export out=$TANDEM_BINARY_DIR/kernel_ledger
mkdir -p "$out"
toolkit=$(nvcc --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p')

# The flags of cmake/TandemCuda.cmake. A log is there only if its compilation succeeded.
compile() {
  local log=$out/${1##*/}.log
  if nvcc -arch=sm_90 -std=c++20 -fmad=false --resource-usage -DTANDEM_BACKEND=cuda -DTANDEM_CUBLAS_DIR='""' \
    -I"$TANDEM_BINARY_DIR/include" -Werror all-warnings \
    -Xcompiler=-Wall,-Wextra,-Werror,-fPIC,-ffp-contract=off,-fno-math-errno \
    -c "$1" -o "$out/${1##*/}.o" >"$log.new" 2>&1; then
    mv "$log.new" "$log"
  else
    echo "FAILED: nvcc refuses $1:" && cat "$log.new" && rm -f "$log" && return 1
  fi
}
export -f compile
newest=$(find cuda core tests/kernel_ledger.test.sh -name '*.h' -o -name kernel_ledger.test.sh | xargs ls -t | head -1)
for source in cuda/*.cu; do
  log=$out/${source##*/}.log
  [[ $log -nt $source && $log -nt $newest && $(head -1 "$out/toolkit" 2>/dev/null) == "$toolkit" ]] || echo "$source"
done | xargs -r -P 2 -I{} nice bash -c 'compile {}'
echo "$toolkit" >"$out/toolkit"

# "REGISTERS SHARED_BYTES KERNEL", the largest over the operations (an enumerator) and types that one line stands for.
logs=()
for source in cuda/*.cu; do logs+=("$out/${source##*/}.log"); done
awk -F"'" '
  /Compiling entry function/ { kernel = $2 }
  /bytes stack frame/ && !/ 0 bytes stack frame, 0 bytes spill stores, 0 bytes spill/ { print "stack " $0, kernel }
  /: Used [0-9]+ registers/ {
    match($0, /Used [0-9]+/); registers = substr($0, RSTART + 5, RLENGTH - 5)
    shared = match($0, /[0-9]+ bytes smem/) ? substr($0, RSTART, RLENGTH - 11) : 0
    print registers, shared, kernel
  }' "${logs[@]}" | c++filt -p |
  sed -E 's/(tandem::cuda::)?detail::entry<(.*[^ ]) *>$/\2/; s/tandem::(cuda::)?|\(anonymous namespace\):://g; s/ *>/>/g
    s/\((Binary|Unary|Reduce)Op\)[0-9]+/OP/g; s/\(Math\)0/fp32/; s/\(Math\)1/tf32/; s/\(Math\)2/bf16/
    s/CastValue<[^>]*>/CastValue<...>/' >"$out/kernels"
kernels=$(grep -vc '^stack' "$out/kernels") || true
((kernels > 200)) || { echo "FAILED: $kernels kernels are too few to be all; does ptxas say it otherwise?" && exit 1; }
awk '!/^stack/ {
    name = $0; sub(/^[0-9]+ [0-9]+ /, "", name)
    if ($1 > registers[name]) registers[name] = $1
    if ($2 > shared[name]) shared[name] = $2
  }
  END { for (name in registers) printf "%3d %5d %s\n", registers[name], shared[name], name }' "$out/kernels" |
  sort -k3 >"$out/now"

if [[ ${1:-} == --write ]]; then
  {
    echo "# nvcc $toolkit, sm_90: registers of a thread, bytes of shared memory of a block, kernel."
    echo "# Written by kernel_ledger.test.sh --write; a larger number is a decision, to be explained in its commit."
    cat "$out/now"
  } >"$ledger"
fi

# Another toolkit allots registers otherwise, which is nobody's fault here.
[[ $(head -1 "$ledger") == "# nvcc $toolkit,"* ]] && judged=1 || judged=0
if ((!judged)); then echo "nvcc is $toolkit: registers are not compared"; fi
failed=0
grep '^stack' "$out/kernels" && echo "FAILED: these have a stack or spill registers" && failed=1
awk -v judged=$judged '
  function wrong(text) { print "FAILED: " text; failures = 1 }
  /^#/ { next }
  { name = $0; sub(/^ *[0-9]+ +[0-9]+ /, "", name) }
  FNR == NR { registers[name] = $1; shared[name] = $2; next }
  !(name in registers) { wrong(name " is not in the ledger (--write)"); next }
  {
    if (judged && $1 > registers[name]) wrong(name " takes " $1 " registers, its budget is " registers[name])
    if ($2 > shared[name]) wrong(name " takes " $2 " bytes of shared memory, its budget is " shared[name])
    if ($2 > 49152) wrong(name " takes " $2 " bytes of shared memory, which CUDA does not give")
    delete registers[name]
  }
  END {
    for (name in registers) wrong("the ledger names " name ", which is gone (--write)")
    exit failures
  }' "$ledger" "$out/now" || failed=1
echo "$kernels kernels on $(wc -l <"$out/now") lines"
exit $failed
