#!/bin/sh
# Usage: tests/weak_symbols.sh NAMESPACE OBJECT...
# Fails when an object of the CPU kernels compiled for one instruction set emits a weak symbol outside its own
# namespace: the linker keeps one copy of such a symbol, perhaps the one that an old CPU cannot run. For optimised
# builds; without optimisation compilers emit every inline function.
set -eu
namespace=$1
shift
[ $# -gt 0 ] || { echo "weak_symbols.sh: no objects given" >&2; exit 2; }
for object; do
  [ -f "$object" ] || { echo "weak_symbols.sh: no file $object" >&2; exit 2; }
done
found=$(nm -A "$@" | grep -E ' [WVu] ' | grep -v "6tandem${#namespace}$namespace" || true)
[ -z "$found" ] && exit 0
echo "weak symbols outside tandem::$namespace:" >&2
echo "$found" | c++filt >&2
exit 1
