#!/usr/bin/env bash
# The folders are the architecture: who may include whom, and how large it all may be.
#   apps -> layers, optim, data -> core; nobody else; kernels only through core, optim and the data loader.
set -uo pipefail
cd "$TANDEM_SOURCE_DIR"
line_budget=11000
file_limit=400
long_files=""  # exceptions to file_limit, each with its reason beside it

failures=0
wrong() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

# includes FOLDER...: "file:header" for each #include in its sources.
includes() {
  grep -rHoP '^\s*#\s*include\s*[<"]\K[^>"]+' "$@" --include='*.h' --include='*.cpp' --include='*.cu' --include='*.cuh'
}

# forbid WHY PATTERN FOLDER...: no line of `includes` may match.
forbid() {
  local why=$1 pattern=$2 found
  shift 2
  found=$(includes "$@" | grep -P "$pattern") && wrong "$why:"$'\n'"$found"
}
# allow_only WHY PATTERN FILES: those that match may be only in these files.
allow_only() {
  local found
  found=$(includes core layers optim data apps | grep -P "$2" | grep -vP "$3") && wrong "$1:"$'\n'"$found"
}

forbid "core includes what stands on it" ':(tandem/)?(layers|optim|data|apps|tests|cuda)/' core
for folder in layers optim data; do
  others=$(printf '%s\n' layers optim data | grep -v "^$folder$" | paste -sd'|')
  forbid "$folder may include core and itself alone" ":(tandem/)?($others|apps|tests|cuda)/" "$folder"
done
forbid "nobody includes apps or tests" ':.*\b(apps|tests)/' core layers optim data apps
forbid "an include of ours is written \"tandem/...\"" ':(\.\.?/|core/|layers/|optim/|data/)' core layers optim data apps
for folder in core layers optim data; do
  # A quoted or angled name without a folder that is one of our own headers.
  own=$(find "$folder" -name '*.h' -printf '%f\n' | paste -sd'|')
  forbid "an include of ours is written \"tandem/...\"" ":(${own//./\\.})\$" "$folder"
done

allow_only "kernels are called by core, optim, the data loader and who times them alone" \
  ':tandem/core/(kernels|dispatch)\.h$' '^(core/|optim/|data/data_loader\.cpp|apps/bench_kernels\.cpp)'
allow_only "only core/blas.cpp sees BLAS" ':(cblas|openblas_config|f77blas|lapacke)\.h$' '^core/blas\.cpp:'
allow_only "the library's own parts (pool, scratch memory, formulas) are core's" \
  ':tandem/core/(parallel|scalar_math|blas|tensor_impl)\.h$|:tandem/core/(cpu|ops)/' '^(core/|data/(data_loader|digits)\.cpp)'
allow_only "CUDA's headers belong to cuda/" ':cuda' '^cuda/'
forbid "kernels see views, never a Tensor" ':tandem/core/(tensor|ops|autograd|storage|tensor_impl)\.h$' core/cpu

# Sizes.
list() { find "$@" -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.hpp'; }
all=$(list core layers optim data | xargs cat | wc -l)
lines=$(list core layers optim data | xargs cat | grep -cvP '^\s*(//.*)?$')
echo "core, layers, optim and data: $lines lines of code (budget $line_budget), $all with comments and blank lines"
((lines <= line_budget)) || wrong "$lines lines of code are over the budget of $line_budget"
while read -r count file; do
  [[ $file == total || " $long_files " == *" $file "* ]] && continue
  ((count <= file_limit)) || wrong "$file has $count lines, over $file_limit; is it still one responsibility?"
done < <(list core layers optim data cuda apps tests cmake | xargs wc -l)

exit $((failures > 0))
