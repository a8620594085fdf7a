// Batch norm with its activation in one pass: the same values, never stored in between.
#include "tandem/cuda/batch_norm.h"

namespace tandem {
using namespace cuda;

void run(Cuda, const BnAct& k) {
  for_act(
      k.act, [&]<auto act>(Constant<act>) { bn_apply<Constant<act>>(k); });
}

void run(Cuda, const BnActGradSums& k) {
  for_act(
      k.act, [&]<auto act>(Constant<act>) { bn_grad_sums<Constant<act>>(k, k.y); });
}

void run(Cuda, const BnActGradApply& k) {
  for_act(
      k.act, [&]<auto act>(Constant<act>) { bn_grad_apply<Constant<act>>(k, k.y); });
}

}  // namespace tandem
