#!/usr/bin/env bash
# The program runs on a CPU of 2008 (Nehalem: SSE4.2, no AVX), as qemu's user mode presents it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset OPENBLAS_CORETYPE TANDEM_CPU_PATH  # they would choose kernels for another CPU

fail() {
  echo "FAILED: $*" >&2
  exit 1
}

if ! command -v qemu-x86_64 >/dev/null; then
  [[ ${CI:-} != true ]] || fail "qemu-x86_64 is not installed (Debian: qemu-user)"
  echo "SKIPPED: qemu-x86_64 is not installed (Debian: qemu-user)"
  exit 77
fi
nehalem() { qemu-x86_64 -cpu Nehalem "$@"; }

# This qemu does refuse what that CPU lacks: a program with one AVX2 instruction dies.
echo 'int main() { asm volatile("vpaddd %%ymm0, %%ymm0, %%ymm0" ::: "xmm0"); }' >"$work/avx2.cpp"
"${CXX:-c++}" "$work/avx2.cpp" -o "$work/avx2"
! nehalem "$work/avx2" 2>/dev/null || fail "qemu runs AVX2 as Nehalem: this test would show nothing"

nehalem "$TANDEM_PROGRAM" version | tee "$work/version"
grep -q x86-64 "$work/version" || fail "version does not name the x86-64 kernels"
nehalem "$TANDEM_PROGRAM" train --dataset digits --layers conv:4:s=2,bn,relu,dense:32,bn,relu,dense:10 \
  --batch-size 32 --max-steps 5 --out "$work/run"
nehalem "$TANDEM_PROGRAM" version --json >/dev/null
[[ -s $work/run/model.safetensors ]] || fail "no model was written"
