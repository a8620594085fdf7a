// Initial values of parameters. Each is drawn from the stream "init/<parameter's full name>" of the model's
// seed, on the CPU, so that a parameter's start depends on its name and the seed alone.
#pragma once

#include <string>

#include "tandem/core/random.h"

namespace tandem {

// How a tensor starts. fan_in and fan_out come from the layer.
struct Init {
  enum class Kind { zeros, ones, constant, normal, uniform, he_normal, he_uniform, glorot_normal,
                    glorot_uniform, lecun_normal } kind = Kind::he_normal;
  double a = 0, b = 0;

  static Init zeros() { return {Kind::zeros}; }
  static Init ones() { return {Kind::ones}; }
  static Init constant(double value) { return {Kind::constant, value}; }
  static Init normal(double mean, double std) { return {Kind::normal, mean, std}; }
  static Init uniform(double low, double high) { return {Kind::uniform, low, high}; }
  static Init he_normal() { return {Kind::he_normal}; }            // N(0, 2 / fan_in), He et al. 2015
  static Init he_uniform() { return {Kind::he_uniform}; }          // U(+-sqrt(6 / fan_in))
  static Init glorot_normal() { return {Kind::glorot_normal}; }    // N(0, 2 / (fan_in + fan_out)), Glorot and Bengio 2010
  static Init glorot_uniform() { return {Kind::glorot_uniform}; }  // U(+-sqrt(6 / (fan_in + fan_out)))
  static Init lecun_normal() { return {Kind::lecun_normal}; }      // N(0, 1 / fan_in)
};

// Fills x. Throws ValueError for a negative deviation or low > high.
void initialize(Tensor& x, const Init& init, int64_t fan_in, int64_t fan_out, const Stream& stream);

// "he_normal", "normal(0, 0.1)" and so on, and back; parse throws ValueError listing the names.
std::string to_string(const Init& init);
Init parse_init(const std::string& text);

}  // namespace tandem
