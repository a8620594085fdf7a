// Running statistics taken anew from data, instead of a moving average over training.
#pragma once

#include <cstdint>
#include <functional>

#include "tandem/layers/module.h"

namespace tandem {

// Sets the running statistics of every BatchNorm in `model` to those of batches 0 to `batches` - 1: the mean of all
// values that the layer sees, and their pooled variance (with n - 1 in PyTorch's convention, n in Keras'). Wu and Johnson
// 2021, section 3, call the like PreciseBN. Meanwhile each batch norm normalises by its batch, as in training; all else
// is as in eval (no dropout). num_batches_tracked becomes `batches`. Neither parameters nor modes change, frozen
// layers are left alone, and so, with a warning, is a channel that is not finite; nothing changes if a batch is refused.
// Throws ValueError if there are no batches or no running statistics to set, and what forward throws.
void recalibrate(Module& model, int64_t batches, const std::function<Tensor(int64_t)>& batch);

// All batches of one epoch of a DataLoader, or of whatever has batches() and batch(epoch, index).x.
template <class Loader>
void recalibrate(Module& model, const Loader& loader) {
  recalibrate(model, loader.batches(), [&](int64_t i) { return loader.batch(0, i).x; });
}

}  // namespace tandem
