// A kernel call of any kind as an object: what a recording holds and the plan's rewrites look at. Internal.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "tandem/core/dispatch.h"

namespace tandem {

inline bool reads(Use use) { return use == Use::in || use == Use::rows_in || use == Use::inout; }
inline bool writes(Use use) { return use != Use::in && use != Use::rows_in; }
// They share elements, an empty one counted as one byte.
inline bool overlap(const View& a, const View& b) {
  const auto end = [](const View& v) {
    return static_cast<const char*>(v.data) + std::max<int64_t>(1, v.dims.numel() * size_of(v.dtype));
  };
  return static_cast<const char*>(a.data) < end(b) && static_cast<const char*>(b.data) < end(a);
}

struct Call {
  struct Operand {
    std::string name;  // of the field
    View* view;
    Use use;
    bool* add;  // of a Sum, else null
  };
  virtual ~Call() = default;
  virtual const char* name() const = 0;
  virtual void run() const = 0;
  virtual std::unique_ptr<Call> clone() const = 0;
  virtual std::string scalars() const = 0;  // "axis=3 n=6272"
  virtual bool on_host() const { return false; }
  std::vector<Operand> operands;  // those that are there
};

// Scalars of kernels as text.
std::string scalar_text(double value);
std::string scalar_text(const Shape& shape);
std::string scalar_text(const Window& window);

// `f`(name, field) for every field of a kernel struct.
template <class K, class F>
void for_fields(K& k, const F& f) {
  std::string names = K::field_names;
  const auto next = [&] {
    const size_t comma = names.find(',');
    std::string name = names.substr(0, comma);
    names.erase(0, comma == std::string::npos ? comma : names.find_first_not_of(" \n", comma + 1));
    return name;
  };
  std::apply([&](const auto&... field) { (f(next(), const_cast<std::remove_cvref_t<decltype(field)>&>(field)), ...); },
             k.fields());
}

template <class K>
struct CallOf : Call {
  explicit CallOf(const K& kernel) : k(kernel) {
    for_fields(k, [this](std::string name, auto& field) {
      if constexpr (requires { field.use; }) {
        bool* add = nullptr;
        if constexpr (requires { field.add; }) add = &field.add;
        if (field.data) operands.push_back({std::move(name), &field, field.use, add});
      } else if constexpr (requires { field.use_of_each; }) {
        for (int64_t i = 0; i < field.size(); ++i) {
          if (field[i].data) operands.push_back({name + std::to_string(i), &field[i], field.use_of_each, nullptr});
        }
      }
    });
  }
  const char* name() const override { return K::name; }
  void run() const override { launch(k); }
  std::unique_ptr<Call> clone() const override { return std::make_unique<CallOf>(k); }
  std::string scalars() const override {
    std::string text;
    for_fields(k, [&text](const std::string& name, auto& field) {
      using Field = std::remove_cvref_t<decltype(field)>;
      if constexpr (
          requires { field.use; } || requires { field.use_of_each; })
        return;
      else {
        if constexpr (std::is_same_v<Field, Math>) {
          if (field == Math::fp32) return;
        }
        if (!text.empty()) text += ' ';
        text += name;
        text += '=';
        if constexpr (std::is_same_v<Field, Math>)
          text += name_of(field);
        else if constexpr (std::is_enum_v<Field>)
          text += std::to_string(static_cast<int>(field));
        else if constexpr (std::is_integral_v<Field>)
          text += std::to_string(field);
        else
          text += scalar_text(field);
      }
    });
    return text;
  }
  K k;
};

// The call as one of K, or null.
template <class K>
K* as(Call& call) {
  auto* typed = dynamic_cast<CallOf<K>*>(&call);
  return typed ? &typed->k : nullptr;
}

}  // namespace tandem
