// Parameter: a named tensor that an optimizer moves, and what it is for.
#pragma once

#include <string>
#include <utility>

#include "tandem/core/tensor.h"

namespace tandem {

// Given by the layer, never guessed from rank. Weight decay reaches `weight` alone unless told otherwise.
enum class Role { weight, bias, norm };

struct Parameter {
  std::string name;
  Tensor tensor;
  Role role = Role::weight;

  Parameter(std::string name, Tensor tensor, Role role)
      : name(std::move(name)), tensor(std::move(tensor)), role(role) {}
  Parameter(Tensor tensor) : tensor(std::move(tensor)) {}  // a bare tensor is a weight
};

}  // namespace tandem
