#!/usr/bin/env bash
# tandem_vectors must fail when it should: every way in which a file or an expectation can be wrong.
set -uo pipefail
runner=$TANDEM_BINARY_DIR/tests/tandem_vectors
vectors=$TANDEM_SOURCE_DIR/tests/vectors
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failures=0
wrong() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

# expect STATUS TEXT ARGUMENTS...: the runner's exit status, and a text that it must print.
expect() {
  local status=$1 text=$2 output
  shift 2
  output=$("$runner" "$@" 2>&1)
  local got=$?
  [[ $got == "$status" ]] || wrong "tandem_vectors $*: exit $got instead of $status: $output"
  [[ $output == *"$text"* ]] || wrong "tandem_vectors $*: no '$text' in: $output"
}

# edit FILE EXPRESSION: a copy of a vector file, its text changed by perl; the change must change something.
edit() {
  perl -0pe "$2" "$vectors/$1" >"$folder/$1"
  cmp -s "$vectors/$1" "$folder/$1" && wrong "$2 changes nothing in $1"
}

expect 0 " 0 failed" "$vectors"
expect 0 "1 passed, 0 failed" "$vectors/relu.json"
expect 0 '"passed":1' "$vectors/relu.json" --json
expect 0 '"status":"passed"' "$vectors/relu.json" --json --device cpu
expect 1 'no case has the tag "nonsense"' "$vectors" --tag nonsense

# Wrong usage.
expect 2 "usage:"
expect 2 "unknown flag --tags" --tags core "$vectors"
expect 2 "--tag needs a value" "$vectors" --tag
expect 2 "gpu" "$vectors" --device gpu

# Files that cannot be read.
expect 1 "cannot be opened" "$folder/missing.json"
mkdir "$folder/empty" && expect 1 "holds no .json file" "$folder/empty"
head -c 700 "$vectors/relu.json" >"$folder/cut.json" && expect 1 "1 failed" "$folder/cut.json"
edit relu.json 's/"cases"/"causes"/' && expect 1 "cases" "$folder/relu.json"
edit relu.json 's/"cases":\[.*\]\}/"cases":[]}/s' && expect 1 "there are no cases" "$folder/relu.json"
edit relu.json 's/vectors.1/vectors\/2/' && expect 1 "schema" "$folder/relu.json"
edit relu.json 's/"id"/"name"/' && expect 1 'the case has no "id"' "$folder/relu.json"
edit relu.json 's/"tags"/"labels"/' && expect 1 'the case has no "tags"' "$folder/relu.json"
edit relu.json 's/"op":"relu"/"op":"gelu"/' && expect 1 'unknown op "gelu"' "$folder/relu.json"
edit relu.json 's/"float32"/"float16"/' && expect 1 "float16" "$folder/relu.json"
edit relu.json 's/"shape":\[3,4,2\]/"shape":[3,4,3]/' && expect 1 "expected 36 values" "$folder/relu.json"
edit relu.json 's/"expect":\{/"expect":{"dz":{"shape":[1],"data":[1]},/' && expect 1 "no such result" "$folder/relu.json"
edit relu.json 's/"expect":\{.*?\]\}\}/"expect":{}/s' && expect 1 "nothing was compared" "$folder/relu.json"

# Expectations moved by little more than the tolerance, in each kind of check.
edit linear.json 's/"dbias":\{"shape":\[1\],"data":\[/$&1e-9+/; s/1e-9\+(-?[\d.e-]+)/$1+1e-9/e' &&
  expect 1 "dbias[0]: got" "$folder/linear.json"
edit cross_entropy.json 's/"argmax":\[7\]/"argmax":[6]/' && expect 1 "argmax[0]: got 7, want 6" "$folder/cross_entropy.json"
edit bn_core.json 's/"num_batches_tracked":2/"num_batches_tracked":3/' && expect 1 "num_batches_tracked[0]: got 2, want 3" "$folder/bn_core.json"
edit bn_core.json 's/("running_var":\{"shape":\[3\],"data":\[)(-?[\d.e-]+)/$1.($2+1e-8)/e' && expect 1 "running_var[0]: got" "$folder/bn_core.json"
edit bn_hard.json 's/"-inf",(-0\.040\d+)/"\x22-inf\x22,".($1+1e-5)/e' && expect 1 "running_mean[1]: got" "$folder/bn_hard.json"
edit relu.json 's/("expect":\{"y":\{"shape":\[3,4,2\],"data":\[)-?[\d.e-]+/$1"nan"/' && expect 1 "y[0]: got" "$folder/relu.json"
edit bn_generated.json 's/8\.334915899421958e-08/8.36e-08/' && expect 1 "batch_var[0]: got" "$folder/bn_generated.json"
edit bn_generated.json 's/1\.00034106/1.00034107/' && expect 1 "x_check[0]" "$folder/bn_generated.json"
edit bn_keras.json 's/0\.010000000000000009/0.01001/' && expect 1 "pytorch_momentum[0]: got" "$folder/bn_keras.json"
edit optimizers.json 's/("p_after_step":\{"shape":\[10,5\],"data":\[)(-?[\d.e-]+)/$1.($2+1e-8)/e' && expect 1 "p_after_step[0]: got" "$folder/optimizers.json"
edit networks.json 's/1\.3160337473874815/1.3160337483/' && expect 1 "loss of step 3.0[0]: got" "$folder/networks.json"
edit networks.json 's/"num_batches_tracked":5/"num_batches_tracked":4/' && expect 1 "final[1].num_batches_tracked[0]: got 5, want 4" "$folder/networks.json"
edit contracts.json 's/"mode":"train","x_shape":\[3\],"expect":"error"/"mode":"train","x_shape":[3],"expect":"ok"/' &&
  expect 1 "expected no error, got" "$folder/contracts.json"
edit contracts.json 's/"must_mention":\["3","5"\]/"must_mention":["3","7"]/' && expect 1 'must mention "7"' "$folder/contracts.json"
edit contracts.json 's/"momentum":"nan"/"momentum":0.1/' && expect 1 "expected an error, got none" "$folder/contracts.json"

# Every quantity of every file, moved by three times its tolerance.
for file in "$vectors"/*.json; do
  "$vectors/mutants.pl" "$runner" "$file" || wrong "mutants of $file"
done

# Keys that nobody reads, and shapes that do not fit.
edit relu.json 's/"op":"relu"/"op":"relu","slope":0.1/' && expect 1 'unknown key "slope"' "$folder/relu.json"
edit relu.json 's/"op":"relu"/"op":"relu","torch200":0.1/' && expect 0 "1 passed" "$folder/relu.json"
edit relu.json 's/"x":\{/"x":{"stride":1,/' && expect 1 'a tensor: unknown key "stride"' "$folder/relu.json"
edit bn_core.json 's/"mode":"eval"/"mode":"eval","training":true/' && expect 1 'a step: unknown key "training"' "$folder/bn_core.json"
edit bn_core.json 's/("x_view".*"offset":)1/${1}90/' && expect 1 "the view leaves its storage" "$folder/bn_core.json"
edit bn_core.json 's/("x_view".*"offset":)1/${1}2/' && expect 1 "x_view: the strided data, copied on entry, differ from x" "$folder/bn_core.json"
edit contracts.json 's/"num_features":3/"num_features":3,"renorm":true/' && expect 1 'config: unknown key "renorm"' "$folder/contracts.json"
edit networks.json 's/"type":"relu"/"type":"relu","slope":0/' && expect 1 'relu: unknown key "slope"' "$folder/networks.json"
edit cross_entropy.json 's/"labels_shape":\[1\]/"labels_shape":[2]/' && expect 1 "do not fill labels_shape [2]" "$folder/cross_entropy.json"
edit cross_entropy.json 's/"labels":\[7\]/"labels":[[7]]/' && expect 0 "0 failed" "$folder/cross_entropy.json"
edit bn_keras.json 's/"mode":"train"/"mode":"train","mask":{"shape":[6],"data":[1,1,1,1,1,1]}/' && expect 0 "0 failed" "$folder/bn_keras.json"
edit bn_keras.json 's/"mode":"train"/"mode":"train","mask":{"shape":[6],"data":[1,1,1,1,1,0]}/' && expect 1 "failed keras_2d_mom1" "$folder/bn_keras.json"
edit bn_keras.json 's/"mode":"train"/"mode":"train","mask":{"shape":[3],"data":[1,1,1]}/' && expect 1 "expected mask[6] for x[6, 3], got mask[3]" "$folder/bn_keras.json"

# Properties can fail, and an unknown one is no pass.
edit gen_batch_norm.json 's/"eps":1e-10/"eps":0.5/g' && expect 1 "y_has_variance_gamma_squared[0]: got" "$folder/gen_batch_norm.json"
edit gen_batch_norm.json 's/"shift_invariant"/"invariant"/' && expect 1 'knows no property "invariant"' "$folder/gen_batch_norm.json"

# Only cases tagged optional may be skipped.
amsgrad='s/"optimizer":"Adam","hyper":\{/"optimizer":"Adam","hyper":{"amsgrad":true,/'
edit optimizers.json "$amsgrad; s/\"core\"/\"optional\"/g" && expect 0 "1 skipped (optional)" "$folder/optimizers.json"
edit optimizers.json "$amsgrad" && expect 1 "only cases tagged optional may be skipped" "$folder/optimizers.json"
# A stretch case that fails is missed, one that is not tagged so fails.
expect 0 "1 missed" "$vectors/bn_hard.json"
edit bn_hard.json 's/,"stretch"//' && expect 1 "failed bn_hard_scale1e+200_f64" "$folder/bn_hard.json"
# What holds at the careful level but not at the best one is counted.
edit bn_hard.json 's/"tol_best":\{"y":\[0,2e-06\]/"tol_best":{"y":[0,1e-12]/' && expect 0 "reached in 0 of 1" "$folder/bn_hard.json"

exit $((failures > 0))
