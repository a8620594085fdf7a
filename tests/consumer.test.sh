#!/usr/bin/env bash
# An outside project (apps/embed) builds and trains against Tandem: installed and moved, static and shared,
# and as a subfolder. Nothing it needs lies outside the prefix, and it sees no header of our dependencies.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

fail() {
  echo "FAILED: $*" >&2
  exit 1
}

# try NAME CMAKE-ARGUMENT...: builds the examples and runs them; they must learn.
try() {
  local name=$1
  shift
  echo "== $name"
  if ! { cmake -G Ninja -S "$TANDEM_SOURCE_DIR/apps/embed" -B "$name" "$@" && cmake --build "$name"; } >"$name.log" 2>&1; then
    cat "$name.log"
    fail "$name does not build"
  fi
  "$name/main" >"$name.out" && "$name/own_layer" >>"$name.out" || fail "$name: an example stopped with code $?"
  cat "$name.out"
  awk '/test loss/ { if ($NF > 0 && $NF < 1.5) ++learned } /gradient error/ { exact = $NF < 1e-3 }
    END { exit !(learned == 3 && exact) }' "$name.out" || fail "$name: an example did not learn, or its gradient is wrong"
}

cmake --install "$TANDEM_BINARY_DIR" --prefix "$work/first" >install.log || fail "cmake --install"
mv first "moved prefix"
prefix="$work/moved prefix"

# The package names no place of this machine.
config=$(dirname "$(find "$prefix" -name TandemConfig.cmake)")
for place in "$work" "$TANDEM_SOURCE_DIR" "$TANDEM_BINARY_DIR" /usr/include /usr/lib; do
  ! grep -nF -- "$place" "$config"/*.cmake || fail "an installed CMake file names $place"
done

# The headers that main.cpp draws in are the prefix's and the compiler's.
"${CXX:-c++}" -std=c++20 -M -I "$prefix/include" "$TANDEM_SOURCE_DIR/apps/embed/main.cpp" >headers
! grep -niE '/(fmt|nlohmann|CLI|curl|openblas[^/]*|catch2|libpng[^/]*)/|/(cblas|zlib|zconf|png)\.h' headers ||
  fail "a public header includes one of a dependency"

try static -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS="-Wall -Wextra -Wpedantic -Werror"
! ldd static/main | grep libtandem || fail "the static example loads libtandem.so"
try shared -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON
ldd shared/main | grep "moved prefix/.*libtandem" || fail "the shared example does not load the moved libtandem.so"
try subfolder -DTANDEM_FOLDER="$TANDEM_SOURCE_DIR"
[[ ! -e subfolder/tandem/tandem ]] || fail "a subfolder build made the program"
