// Tensor: a shared handle to an n-dimensional array, with an optional place in the autograd graph.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <iosfwd>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tandem/core/device.h"
#include "tandem/core/dtype.h"
#include "tandem/core/kernels.h"
#include "tandem/core/shape.h"
#include "tandem/core/storage.h"

namespace tandem {

struct Node;

struct TensorOptions {
  Dtype dtype = Dtype::float32;
  Device device = {};
};

// Copying a Tensor copies the handle: both see the same elements. clone() copies the elements.
// Elements are contiguous, row-major. A default-constructed Tensor is empty (`!t.defined()`).
// Not synchronised: one tensor is used by one thread at a time; different tensors by any number.
class Tensor {
 public:
  Tensor() = default;

  // Copies host values; data.size() must be the shape's element count (ShapeError otherwise).
  template <class T>
  static Tensor from(std::span<const T> data, const Shape& shape, Device device = {});
  template <class T>
  static Tensor from(const std::vector<T>& data, const Shape& shape, Device device = {}) {
    return from(std::span<const T>(data), shape, device);
  }
  // Copies host data of any layout: element [i, j, ..] is data[i * strides[0] + j * strides[1] + ..].
  template <class T>
  static Tensor from_strided(const T* data, const Shape& shape, std::span<const int64_t> strides);

  bool defined() const { return impl_ != nullptr; }
  const Shape& shape() const;
  int rank() const { return shape().rank(); }
  int64_t dim(int axis) const;  // negative axes count from the end; throws ShapeError
  int64_t numel() const { return shape().numel(); }
  Dtype dtype() const;
  Device device() const;

  // The elements on the host. T must be the tensor's dtype and the device the CPU (ValueError otherwise).
  // mutable_data counts as an in-place change: backward through a value saved before throws.
  template <class T>
  const T* data() const;
  template <class T>
  T* mutable_data();
  template <class T>
  std::vector<T> to_vector() const;  // copies, from any device
  double item() const;               // the only element, as double; ValueError if there are more
  operator View() const;

  // Copies. `to` returns the same handle when nothing changes; it is differentiable between floats.
  Tensor clone() const;
  Tensor to(Device device) const;
  Tensor to(Dtype dtype) const;

  // In-place changes: of values (never recorded, not allowed on a tensor that the graph computes).
  void copy_from(const Tensor& source);  // same shape; converts dtype and device
  void fill(double value);
  void increment();  // by 1: a counter, int64 of one element
  // Takes the elements of `source`, which then shares them, with their dtype and device; every handle sees it. Another
  // shape is a ShapeError. A gradient of another dtype or device is dropped.
  void set_data(const Tensor& source);

  // Autograd. A leaf with requires_grad collects its gradient in grad(); backward() adds to it.
  bool requires_grad() const;          // true also for tensors computed from such leaves
  Tensor& set_requires_grad(bool on);  // leaves of floating dtype only
  bool is_leaf() const;
  Tensor grad() const;  // empty until backward, and after zero_grad
  void set_grad(const Tensor& grad);
  void zero_grad();
  Tensor detach() const;  // same elements, outside the graph
  // Gradients of this tensor with respect to every leaf, added to their grad(). `grad` defaults to 1 for a
  // single element. Frees the graph unless retain_graph: a second backward then throws.
  void backward(const Tensor& grad = {}, bool retain_graph = false) const;

  // A hint that most elements are 0, which lets ops skip them: it changes how long a result takes, never a finite
  // result. reshape() and detach() keep it, other ops do not.
  bool mostly_zero() const;
  Tensor& set_mostly_zero(bool on);

  uint64_t version() const;  // of the storage
  void bump_version();       // an in-place change happened

  // The same elements with another shape. Differentiable, shares storage. Of listed extents one may be -1: whatever
  // is left. Throws ShapeError.
  Tensor reshape(const Shape& shape) const;
  Tensor reshape(std::initializer_list<int64_t> extents) const;

  struct Impl;

 private:
  friend struct TensorAccess;
  explicit Tensor(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;
};

Tensor empty(const Shape& shape, TensorOptions options = {});  // uninitialised
Tensor zeros(const Shape& shape, TensorOptions options = {});
Tensor ones(const Shape& shape, TensorOptions options = {});
Tensor full(const Shape& shape, double value, TensorOptions options = {});
Tensor empty_like(const Tensor& x);
Tensor zeros_like(const Tensor& x);

// Shape, dtype, device and the values (the first and last three along each long axis).
std::string to_string(const Tensor& tensor);
std::ostream& operator<<(std::ostream& out, const Tensor& tensor);
// "x[32, 784]": how error texts name a tensor.
std::string describe(const char* name, const Tensor& tensor);

}  // namespace tandem
