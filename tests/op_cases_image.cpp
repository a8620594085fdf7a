// The op table: convolution and pooling over [N, H, W, C].
#include "op_cases.h"

namespace tandem::test {
namespace {

using Kind = OpInput::Kind;

OpCase conv(const std::string& what, const Shape& x, const Shape& weight, const Conv2dOptions& options,
            OpInputs large = {}) {
  if (!large.empty()) large.push_back({Shape{large[1].shape[0]}});
  return {.name = "conv2d, " + what,
          .samples = {{{x}, {weight}, {Shape{weight[0]}}}},
          .large = std::move(large),
          .op = [options](const Tensors& t) { return conv2d(t[0], t[1], t[2], options); },
          .reference = [options](const Arrays& a) { return reference::conv2d(a[0], a[1], a[2], options); },
          .roundings = 128};
}

OpCase max_pool(const std::string& what, const Shape& x, const Pool2dOptions& options, OpInputs large = {}) {
  return {.name = "max_pool2d, " + what,
          .samples = {{{x}}},
          .large = std::move(large),
          .op = [options](const Tensors& t) { return max_pool2d(t[0], options); },
          .reference = [options](const Arrays& a) { return reference::max_pool2d(a[0], options); }};
}

OpCase avg_pool(const std::string& what, const Shape& x, const Pool2dOptions& options, OpInputs large = {}) {
  return {.name = "avg_pool2d, " + what,
          .samples = {{{x}}},
          .large = std::move(large),
          .op = [options](const Tensors& t) { return avg_pool2d(t[0], options); },
          .reference = [options](const Arrays& a) { return reference::avg_pool2d(a[0], options); }};
}

std::vector<OpCase> conv_cases() {
  OpCase no_bias = conv("no bias", {2, 4, 4, 2}, {3, 3, 3, 2}, {.padding = 1});
  no_bias.samples[0][2] = {{3}, -1, 1, Kind::absent};
  return {
      conv("3x3", {2, 5, 4, 2}, {3, 3, 3, 2}, {}, {{{37, 14, 14, 8}}, {{16, 3, 3, 8}}}),
      conv("3x3 padded", {2, 4, 4, 2}, {3, 3, 3, 2}, {.padding = 1}, {{{37, 14, 14, 8}}, {{16, 3, 3, 8}}}),
      conv("one input channel", {2, 6, 6, 1}, {4, 3, 3, 1}, {.padding = 1}, {{{33, 28, 28, 1}}, {{32, 3, 3, 1}}}),
      conv("stride 2", {2, 5, 5, 2}, {2, 3, 3, 2}, {.stride = 2, .padding = 1}, {{{33, 14, 14, 32}}, {{32, 3, 3, 32}}}),
      conv("stride that drops a tail", {1, 6, 6, 1}, {1, 3, 3, 1}, {.stride = 2}),
      conv("stride beyond the kernel", {2, 7, 7, 1}, {2, 2, 2, 1}, {.stride = 3}),
      conv("dilation", {1, 6, 6, 2}, {2, 3, 3, 2}, {.padding = 2, .dilation = 2}, {{{9, 14, 14, 8}}, {{8, 3, 3, 8}}}),
      conv("strides, paddings, dilations by axis", {2, 5, 6, 2}, {3, 2, 3, 2},
           {.stride = {2, 1}, .padding = {0, 2}, .dilation = {1, 2}}),
      conv("groups", {2, 4, 4, 4}, {6, 3, 3, 2}, {.padding = 1, .groups = 2}, {{{17, 9, 9, 16}}, {{32, 3, 3, 8}}}),
      conv("depthwise", {2, 4, 4, 3}, {3, 3, 3, 1}, {.padding = 1, .groups = 3}, {{{65, 14, 14, 3}}, {{3, 3, 3, 1}}}),
      conv("1x1", {2, 3, 3, 3}, {4, 1, 1, 3}, {}, {{{33, 14, 14, 32}}, {{24, 1, 1, 32}}}),
      conv("1x1 stride 2", {2, 4, 4, 3}, {4, 1, 1, 3}, {.stride = 2}),
      conv("one pixel", {3, 1, 1, 2}, {2, 1, 1, 2}, {}),
      conv("one pixel padded", {1, 1, 1, 1}, {2, 3, 3, 1}, {.padding = 1}),
      conv("5x5", {1, 7, 7, 1}, {2, 5, 5, 1}, {.padding = 2}, {{{17, 28, 28, 1}}, {{6, 5, 5, 1}}}),
      conv("the whole image", {2, 4, 3, 2}, {3, 4, 3, 2}, {}, {{{65, 7, 7, 16}}, {{32, 7, 7, 16}}}),
      conv("padding beyond the kernel", {1, 3, 3, 1}, {1, 2, 2, 1}, {.padding = 2}),
      no_bias,
  };
}

std::vector<OpCase> pool_cases() {
  const OpInputs large = {{{37, 15, 14, 17}}};
  std::vector<OpCase> rows = {
      max_pool("2x2", {2, 4, 6, 2}, {}, large),
      max_pool("drops a tail", {2, 5, 5, 2}, {}),
      max_pool("overlapping and padded", {2, 5, 6, 2}, {.kernel = 3, .stride = 2, .padding = 1}, large),
      max_pool("dilation", {1, 6, 6, 2}, {.kernel = 2, .stride = 1, .dilation = 3}, large),
      max_pool("ceil_mode", {2, 5, 6, 1}, {.kernel = 2, .stride = 2, .ceil_mode = true}, large),
      max_pool("ceil_mode padded", {1, 6, 7, 1}, {.kernel = 3, .stride = 2, .padding = 1, .ceil_mode = true}),
      max_pool("ceil_mode, larger than the image", {1, 1, 3, 2}, {.kernel = 2, .stride = 2, .ceil_mode = true}),
      max_pool("by axis", {1, 5, 6, 2},
               {.kernel = {3, 2}, .stride = {1, 2}, .padding = {1, 0}}),
      max_pool("1x1", {2, 3, 3, 2}, {.kernel = 1}),
      max_pool("one pixel", {2, 1, 1, 3}, {.kernel = 1}),
      avg_pool("2x2", {2, 4, 6, 2}, {}, large),
      avg_pool("drops a tail", {2, 7, 8, 2}, {.kernel = 3, .stride = 2}),
      avg_pool("overlapping and padded", {2, 5, 6, 2}, {.kernel = 3, .stride = 2, .padding = 1}, large),
      avg_pool("padding not counted", {2, 5, 6, 2}, {.kernel = 3, .stride = 2, .padding = 1, .count_padding = false},
               large),
      avg_pool("ceil_mode", {2, 5, 6, 1}, {.kernel = 2, .stride = 2, .ceil_mode = true}, large),
      avg_pool("ceil_mode padded", {1, 6, 7, 1}, {.kernel = 3, .stride = 2, .padding = 1, .ceil_mode = true}),
      avg_pool("ceil_mode, padding not counted", {1, 6, 7, 1},
               {.kernel = 3, .stride = 2, .padding = 1, .ceil_mode = true, .count_padding = false}),
      avg_pool("ceil_mode, larger than the image", {1, 1, 3, 2}, {.kernel = 2, .stride = 2, .ceil_mode = true}),
      avg_pool("by axis", {1, 5, 6, 2},
               {.kernel = {3, 2}, .stride = {1, 2}, .padding = {1, 0}}),
      avg_pool("1x1", {2, 3, 3, 2}, {.kernel = 1}),
  };
  rows.push_back({.name = "global_avg_pool",
                  .samples = {{{{2, 3, 4, 3}}}, {{{1, 1, 1, 2}}}, {{{3, 1, 5, 1}}}},
                  .large = large,
                  .op = [](const Tensors& t) { return global_avg_pool(t[0]); },
                  .reference = [](const Arrays& a) { return reference::global_avg_pool(a[0]); }});
  return rows;
}

}  // namespace

std::vector<OpCase> image_cases() {
  std::vector<OpCase> rows = conv_cases(), pools = pool_cases();
  rows.insert(rows.end(), pools.begin(), pools.end());
  return rows;
}

}  // namespace tandem::test
