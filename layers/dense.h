// Dense: y = x W^T + b.
#pragma once

#include <string>

#include "tandem/layers/module.h"

namespace tandem {

struct DenseOptions {
  bool bias = true;
  Init init = Init::he_normal();  // of the weight; the bias starts at 0
  Dtype dtype = Dtype::float32;
};

// x[N, in] -> y[N, out]. weight[out, in] (role weight), bias[out] (role bias).
class Dense : public Module {
 public:
  Dense(int64_t in, int64_t out, DenseOptions options = {});  // throws ValueError unless in, out >= 1

  Tensor weight, bias;

  Tensor forward(const Tensor& x) override;
  Shape output_shape(const Shape& x) const override;
  std::string kind() const override { return "dense"; }
  std::string text() const override;
  void members(MemberVisitor& v) override;
  std::unique_ptr<Module> clone() const override;

 private:
  void check(const Shape& x) const;
  int64_t in_, out_;
  DenseOptions options_;
};

}  // namespace tandem
