#!/usr/bin/env bash
# No object of the CPU kernels compiled for one instruction set emits a weak symbol outside its own namespace: the
# linker keeps one copy of such a symbol, perhaps the one that an old CPU cannot run.
set -uo pipefail
cd "$TANDEM_BINARY_DIR"
if ! grep -q '^CMAKE_BUILD_TYPE:[A-Z]*=Release$' CMakeCache.txt || grep -q '^TANDEM_SANITIZE:[A-Z]*=.' CMakeCache.txt; then
  echo "SKIPPED: without optimisation, or with sanitizers, compilers emit every inline function"
  exit 77
fi
failures=0
for namespace in x86_64 avx2 avx512; do
  objects=$(find "CMakeFiles/tandem_cpu_$namespace.dir" -name '*.o')
  found=$(nm -A $objects | grep -E ' [WVu] ' | grep -v "6tandem${#namespace}$namespace")
  if [[ -z $objects || -n $found ]]; then
    echo "FAILED: weak symbols outside tandem::$namespace, or no objects:"
    c++filt <<<"$found"
    failures=$((failures + 1))
  fi
done
exit $((failures > 0))
