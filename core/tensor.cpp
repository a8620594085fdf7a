#include "tandem/core/tensor.h"

#include <fmt/format.h>

#include <cstring>
#include <ostream>

#include "tandem/core/compile.h"
#include "tandem/core/cuda.h"
#include "tandem/core/dispatch.h"
#include "tandem/core/error.h"
#include "tandem/core/recorder.h"
#include "tandem/core/tensor_impl.h"

namespace tandem {
namespace {

[[noreturn]] void wrong_dtype(const char* what, Dtype wanted, const Tensor& got) {
  throw ValueError(fmt::format("{}: expected {}, got a tensor {} of {}; convert it with to(Dtype::{})", what,
                               name_of(wanted), to_string(got.shape()), name_of(got.dtype()), name_of(wanted)));
}

void require_cpu(const char* what, const Tensor& t) {
  if (t.device().kind != Device::Kind::cpu)
    throw DeviceError(fmt::format("{}: expected a tensor on the cpu, got one on {}; copy it with to(Device::cpu())",
                                  what, to_string(t.device())));
}

}  // namespace

// ---- what it is ----------------------------------------------------------------------------------------

static const Tensor::Impl& checked(const std::shared_ptr<Tensor::Impl>& impl) {
  if (!impl) throw ValueError("tensor: an empty Tensor was used; give it values first");
  return *impl;
}

const Shape& Tensor::shape() const { return checked(impl_).shape; }
int64_t Tensor::dim(int axis) const { return shape()[shape().axis(axis, "dim")]; }
Dtype Tensor::dtype() const { return checked(impl_).dtype; }
Device Tensor::device() const { return checked(impl_).storage->device; }
uint64_t Tensor::version() const { return checked(impl_).storage->version; }
void Tensor::bump_version() {
  ++checked(impl_).storage->version;
  if (recorder) recorder->changed(impl_->storage);
}
bool Tensor::mostly_zero() const { return checked(impl_).mostly_zero; }
Tensor& Tensor::set_mostly_zero(bool on) {
  checked(impl_);
  impl_->mostly_zero = on;
  return *this;
}

Tensor::operator View() const {
  if (!impl_) return {};
  if (impl_->storage->recording != 0) check_has_memory(*impl_->storage);
  if (recorder) recorder->used(impl_->storage);
  return {impl_->storage->data, impl_->shape, impl_->dtype, impl_->storage->device};
}

// ---- values ----------------------------------------------------------------------------------------------

Tensor empty(const Shape& shape, TensorOptions options) {
  const size_t bytes = static_cast<size_t>(shape.numel() * size_of(options.dtype));
  auto storage = std::make_shared<Storage>(bytes, options.device);
  if (recorder) recorder->made(storage);
  return TensorAccess::make(shape, options.dtype, std::move(storage));
}

Tensor full(const Shape& shape, double value, TensorOptions options) {
  Tensor y = empty(shape, options);
  launch(Fill{y, value});
  return y;
}

Tensor zeros(const Shape& shape, TensorOptions options) { return full(shape, 0, options); }
Tensor ones(const Shape& shape, TensorOptions options) { return full(shape, 1, options); }
Tensor empty_like(const Tensor& x) { return empty(x.shape(), {x.dtype(), x.device()}); }
Tensor zeros_like(const Tensor& x) { return zeros(x.shape(), {x.dtype(), x.device()}); }

template <class T>
Tensor Tensor::from(std::span<const T> data, const Shape& shape, Device device) {
  if (static_cast<int64_t>(data.size()) != shape.numel())
    throw ShapeError(
        fmt::format("from: expected {} values for shape {}, got {}", shape.numel(), to_string(shape), data.size()));
  refuse_to_record("makes a tensor from values of the host, which a replay would not make again");
  Tensor y = empty(shape, {dtype_of<T>, Device::cpu()});
  if (!data.empty()) std::memcpy(y.impl_->storage->data, data.data(), data.size_bytes());
  return y.to(device);
}

template <class T>
Tensor Tensor::from_strided(const T* data, const Shape& shape, std::span<const int64_t> strides) {
  if (static_cast<int>(strides.size()) != shape.rank())
    throw ShapeError(fmt::format("from_strided: expected {} strides for shape {}, got {}", shape.rank(),
                                 to_string(shape), strides.size()));
  Tensor y = empty(shape, {dtype_of<T>, Device::cpu()});
  T* out = y.mutable_data<T>();
  int64_t index[kMaxRank] = {};
  for (int64_t i = 0; i < shape.numel(); ++i) {
    int64_t at = 0;
    for (int a = 0; a < shape.rank(); ++a) at += index[a] * strides[a];
    out[i] = data[at];
    for (int a = shape.rank() - 1; a >= 0 && ++index[a] == shape[a]; --a) index[a] = 0;
  }
  return y;
}

template <class T>
const T* Tensor::data() const {
  if (dtype() != dtype_of<T>) wrong_dtype("data", dtype_of<T>, *this);
  require_cpu("data", *this);
  refuse_to_record("reads or writes a tensor's values on the host");
  check_has_memory(*impl_->storage);
  return static_cast<const T*>(impl_->storage->data);
}

template <class T>
T* Tensor::mutable_data() {
  T* values = const_cast<T*>(data<T>());
  bump_version();
  return values;
}

template <class T>
std::vector<T> Tensor::to_vector() const {
  const Tensor host = detach().to(Device::cpu());
  const T* values = host.data<T>();
  return std::vector<T>(values, values + numel());
}

double Tensor::item() const {
  if (numel() != 1) throw ValueError(fmt::format("item: expected a single element, got {}", to_string(shape())));
  return detach().to(Dtype::float64).to(Device::cpu()).data<double>()[0];
}

Tensor Tensor::clone() const {
  Tensor y = empty_like(*this);
  launch(Cast{*this, y});
  return record("clone", y, {*this}, [](const Tensor& dy) -> Grads { return {dy}; });
}

// y = x on another device.  dx = dy on x's.
Tensor Tensor::to(Device where) const {
  if (where == device()) return *this;
  require_device(where);
  refuse_to_record("copies a tensor between devices, which a replay would not do again");
  Tensor y = empty(shape(), {dtype(), where});
  const View from = *this;
  if (numel() > 0)
    cuda::copy(View(y).data, where, from.data, device(), static_cast<size_t>(numel() * size_of(dtype())));
  y.set_mostly_zero(mostly_zero());
  return record("to", y, {*this}, [from = device()](const Tensor& dy) -> Grads { return {dy.to(from)}; });
}

void Tensor::copy_from(const Tensor& source) {
  if (source.shape() != shape())
    throw ShapeError(
        fmt::format("copy_from: expected {}, got {}", describe("source", *this), describe("source", source)));
  if (!is_leaf()) throw ValueError("copy_from: this tensor is computed by the graph; detach() it first");
  const Tensor here = source.to(device());
  launch(Cast{here, *this});
  bump_version();
}

void Tensor::fill(double value) {
  if (!is_leaf()) throw ValueError("fill: this tensor is computed by the graph; detach() it first");
  launch(Fill{*this, value});
  bump_version();
}

void Tensor::increment() {
  if (dtype() != Dtype::int64 || numel() != 1)
    throw ValueError(
        fmt::format("increment: expected an int64 of one element, got {} {}", name_of(dtype()), to_string(shape())));
  Count counter;
  counter.n.push_back(*this);
  launch(counter);
  bump_version();
}

void Tensor::set_data(const Tensor& source) {
  checked(impl_);
  if (!is_leaf()) throw ValueError("set_data: this tensor is computed by the graph; detach() it first");
  const Impl& from = checked(source.impl_);
  if (from.shape != impl_->shape)
    throw ShapeError(fmt::format("set_data: expected {}, got {}; for another shape make a new tensor",
                                 describe("source", *this), describe("source", source)));
  if (from.dtype != impl_->dtype || source.device() != device()) impl_->grad = {};  // it no longer fits
  refuse_to_record("gives a tensor other elements (set_data)");
  structure_changed();
  impl_->dtype = from.dtype;
  impl_->storage = from.storage;
}

// ---- autograd ----------------------------------------------------------------------------------------------

bool Tensor::requires_grad() const { return checked(impl_).requires_grad; }
bool Tensor::is_leaf() const { return !checked(impl_).node; }
Tensor Tensor::grad() const {
  checked(impl_);
  if (recorder && is_leaf()) recorder->gradient(impl_, true);
  return impl_->grad;
}
void Tensor::zero_grad() {
  checked(impl_);
  if (recorder) recorder->gradient(impl_, false);
  impl_->grad = {};
}

Tensor& Tensor::set_requires_grad(bool on) {
  if (!is_leaf()) throw ValueError("set_requires_grad: expected a leaf, got a computed tensor; detach() it first");
  if (on && !is_floating(dtype()))
    throw ValueError(fmt::format("set_requires_grad: expected float32 or float64, got {}", name_of(dtype())));
  if (impl_->requires_grad != on) structure_changed();
  impl_->requires_grad = on;
  return *this;
}

void Tensor::set_grad(const Tensor& grad) {
  checked(impl_);
  if (grad.defined() && (grad.shape() != shape() || grad.dtype() != dtype()))
    throw ShapeError(fmt::format("set_grad: expected {} {}, got {} {}", to_string(shape()), name_of(dtype()),
                                 to_string(grad.shape()), name_of(grad.dtype())));
  if (grad.defined() && !(grad.device() == device()))
    throw DeviceError(fmt::format("set_grad: expected a gradient on {}, got one on {}; move it with to()",
                                  to_string(device()), to_string(grad.device())));
  if (recorder) recorder->gradient(impl_, false);
  impl_->grad = grad.defined() ? grad.detach() : grad;
}

Tensor Tensor::detach() const {
  const Impl& impl = checked(impl_);
  return TensorAccess::make(impl.shape, impl.dtype, impl.storage).set_mostly_zero(impl.mostly_zero);
}

// ---- text ----------------------------------------------------------------------------------------------------

std::string describe(const char* name, const Tensor& tensor) { return name + to_string(tensor.shape()); }

namespace {
void print_level(std::string& out, const Tensor& host, int axis, int64_t offset) {
  const Shape& shape = host.shape();
  if (axis == shape.rank()) {
    out += is_floating(host.dtype()) ? fmt::format("{:.5g}", host.data<double>()[offset])
                                     : fmt::format("{}", host.data<int64_t>()[offset]);
    return;
  }
  int64_t stride = 1;
  for (int i = axis + 1; i < shape.rank(); ++i) stride *= shape[i];
  const int64_t n = shape[axis];
  const bool last = axis + 1 == shape.rank();
  out += '[';
  for (int64_t i = 0; i < n; ++i) {
    if (i > 0) out += last ? ", " : ",\n" + std::string(static_cast<size_t>(axis + 1), ' ');
    if (n > 8 && i == 3) {
      out += last ? "..., " : "...,\n" + std::string(static_cast<size_t>(axis + 1), ' ');
      i = n - 3;
    }
    print_level(out, host, axis + 1, offset + i * stride);
  }
  out += ']';
}
}  // namespace

std::string to_string(const Tensor& tensor) {
  if (!tensor.defined()) return "empty tensor";
  const Tensor host = tensor.detach().to(Device::cpu());
  std::string out =
      fmt::format("{} {} {}\n", to_string(tensor.shape()), name_of(tensor.dtype()), to_string(tensor.device()));
  print_level(out, host.to(is_floating(tensor.dtype()) ? Dtype::float64 : Dtype::int64), 0, 0);
  return out;
}

std::ostream& operator<<(std::ostream& out, const Tensor& tensor) { return out << to_string(tensor); }

#define TANDEM_INSTANTIATE(T)                                                             \
  template Tensor Tensor::from(std::span<const T>, const Shape&, Device);                 \
  template Tensor Tensor::from_strided(const T*, const Shape&, std::span<const int64_t>); \
  template const T* Tensor::data() const;                                                 \
  template T* Tensor::mutable_data();                                                     \
  template std::vector<T> Tensor::to_vector() const;
TANDEM_INSTANTIATE(float)
TANDEM_INSTANTIATE(double)
TANDEM_INSTANTIATE(int32_t)
TANDEM_INSTANTIATE(int64_t)
TANDEM_INSTANTIATE(uint8_t)

}  // namespace tandem
