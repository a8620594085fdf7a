"""conv2d, linear, relu, cross_entropy, pooling."""
import math

import numpy as np
import torch
import torch.nn.functional as F

from . import exact as ex
from .exact import exact
from .vector_file import DTYPES, Draw, VectorFile, arrays, f64, tensor, tensors, tolerances

RTOL = {"float64": 1e-11, "float32": 1e-5}


def ops_file():
    file = VectorFile("gen_ops", "conv2d, linear, relu, cross_entropy, pooling", "Layouts as in PyTorch: NCHW, OIHW, "
                      "(out, in). Strides, paddings and dilations that a case does not give are 1, 0 and 1")
    conv_cases(file)
    linear_cases(file)
    relu_cases(file)
    loss_cases(file)
    pool_cases(file)
    return file


def weighted(file, id, op, x_shape, w_shape, bias, forward, peer, **settings):
    """A case of an op of x, weight and bias: `forward` of ours, `peer` of PyTorch's."""
    dtype, draw = DTYPES[id[-3:]], Draw(id)
    inputs = {"x": draw(*x_shape, digits=1), "weight": draw(*w_shape, scale=0.7, digits=1),
              "bias": draw(w_shape[0], digits=1) if bias else None}
    operands = [None if v is None else exact(v, dtype) for v in inputs.values()]
    y, backward = forward(*operands)
    inputs["dy"] = dy = draw(*y.shape, scale=1, digits=1)
    want = {"y": y, **backward(exact(dy, dtype))}
    leaves = [f64(v) for v in operands]
    theirs = peer(*leaves)
    theirs.backward(f64(exact(dy, dtype)).detach())
    got = {"d" + name: leaf.grad for name, leaf in zip(inputs, leaves) if leaf is not None}
    file.agrees("PyTorch", want, arrays({"y": theirs, **got}))
    want = {name: want[name] for name in ("y", *got)}  # no dbias without a bias
    rules = {"y": RTOL[dtype], "dx": RTOL[dtype], "dweight": 3 * RTOL[dtype], "dbias": 10 * RTOL[dtype]}
    file.add(id, op, dtype, **settings, **tensors(inputs), expect=tensors(want, dtype), tol=tolerances(rules, want))


def conv_cases(file):
    def case(id, x_shape, w_shape, bias=True, **options):
        settings = {name: list(v) if isinstance(v, tuple) else v for name, v in options.items()}
        weighted(file, id, "conv2d", x_shape, w_shape, bias, lambda *a: ex.conv2d(*a, **options),
                 lambda *a: F.conv2d(*a, **options), **settings)

    case("g_conv_channels_f32", (1, 2, 2, 2), (2, 2, 2, 1))
    case("g_conv_tail_dropped_f64", (1, 1, 4, 5), (1, 1, 2, 2), stride=(3, 2))
    case("g_conv_kernel_larger_f64", (1, 1, 1, 2), (1, 1, 3, 3), padding=(1, 1))
    case("g_conv_dilation_pad_stride_f32", (1, 1, 3, 2), (1, 1, 2, 2), stride=(2, 1), padding=(2, 1), dilation=(2, 2))
    case("g_conv_groups_f64", (1, 4, 2, 1), (2, 2, 2, 1), groups=2)
    case("g_conv_depthwise_multiplier_f32", (1, 2, 2, 2), (4, 1, 1, 2), groups=2, bias=False)
    case("g_conv_1x1_f32", (2, 2, 2, 1), (2, 2, 1, 1), bias=False)
    case("g_conv_whole_image_f64", (2, 1, 2, 2), (2, 1, 2, 2), bias=False)


def linear_cases(file):
    for id, x_shape, outs, bias in (("g_linear_plain_f32", (2, 3), 2, True), ("g_linear_no_bias_f64", (2, 2), 3, False),
                                    ("g_linear_3d_f32", (2, 1, 2), 2, True)):
        weighted(file, id, "linear", x_shape, (outs, x_shape[-1]), bias, ex.linear, F.linear)


def relu_cases(file):
    for id, x in (("g_relu_zeros_f32", [0.0, -0.0, 1e-45, -1e-45, 3.0, -3.0, 0.1, -0.1]),
                  ("g_relu_zeros_f64", [0.0, -0.0, 5e-324, -5e-324, 1e308, -1e308]),
                  ("g_relu_nonfinite_f32", [math.nan, math.inf, -math.inf, 1.0, -1.0]),
                  ("g_relu_inf_f64", [math.inf, -math.inf, 0.5])):
        dtype, dy, has_nan = DTYPES[id[-3:]], np.arange(1, len(x) + 1) / 2, math.nan in x
        y, backward = ex.relu(exact(x, dtype))
        want = {"y": y, **backward(exact(dy))}
        if np.isfinite(x).all():
            leaf = f64(exact(x, dtype))
            theirs = F.relu(leaf)
            theirs.backward(torch.tensor(dy))
            file.agrees("PyTorch", want, arrays({"y": theirs, "dx": leaf.grad}))
        file.add(id, "relu", dtype, ("core", "nonfinite") if has_nan else ("core",), x=tensor(x), dy=tensor(dy),
                 expect=tensors(want), tol={"y": [0, 0], "dx": None if has_nan else [0, 0]},
                 note="nan stays nan; its gradient is not compared" if has_nan else None)


def loss_cases(file):
    def case(id, logits, labels, reduction="mean", dloss=1.0, smoothing=None, tol=None, tags=("core",), note=None):
        dtype, logits, labels = DTYPES[id[-3:]], np.array(logits, dtype=float), np.array(labels)
        upstream = exact(dloss, dtype)
        loss, backward = ex.cross_entropy(exact(logits, dtype), labels, reduction, smoothing or 0)
        want = {"loss": loss, **backward(upstream)}
        leaf = f64(exact(logits, dtype))
        theirs = F.cross_entropy(leaf, torch.tensor(labels), reduction=reduction, label_smoothing=smoothing or 0)
        theirs.backward(f64(upstream).detach())
        file.agrees("PyTorch", want, arrays({"loss": theirs, "dlogits": leaf.grad}))
        rules = tolerances(dict.fromkeys(want, RTOL[dtype]), want)
        least = 1e-14 if dtype == "float64" else 1e-7  # probabilities are of the size of 1
        file.add(id, "cross_entropy", dtype, tags, reduction=reduction, label_smoothing=smoothing,
                 logits=tensor(logits), labels=labels.reshape(-1).tolist(), labels_shape=list(labels.shape),
                 dloss=tensor(dloss) if np.ndim(dloss) else dloss,
                 expect={**tensors(want, dtype), "argmax": logits.argmax(axis=1).reshape(-1).tolist()},
                 tol={**{name: [r, max(a, least)] for name, (r, a) in rules.items()}, **(tol or {})}, note=note)

    draw, hard = Draw("losses"), {"tags": ("hard",)}
    case("g_ce_sum_f64", draw(3, 2), [1, 0, 1], "sum", 0.5)
    case("g_ce_none_f64", draw(2, 3), [2, 0], "none", draw(2, digits=1))
    case("g_ce_one_class_f64", [[3.0], [-2.0]], [0, 0], tol={"loss": [0, 1e-15]}, note="certain: loss 0, no gradient")
    case("g_ce_smoothing_f64", draw(2, 3), [0, 2], smoothing=0.1)
    case("g_ce_positions_f64", draw(1, 3, 2), [[0, 2]], "none", draw(1, 2, digits=1))
    case("g_ce_extreme_f32", [[1e4, -1e4, 0], [1e30, 0, -1e30]], [1, 0], **hard)
    case("g_ce_extreme_f64", [[1e4, -1e4, 0], [-1e300, 1e300, 0]], [1, 1], **hard)
    case("g_ce_certain_f64", [[40.0, 0, 0], [0, 0, 60]], [0, 2], "sum", **hard, tol={"loss": [1e-11, 1e-15]},
         note="a loss of 8e-18: log(sum exp) loses it, log1p keeps it")
    case("g_ce_far_offset_f32", [[1e6, 1e6 + 1, 1e6 - 1]], [1], **hard)


def pool_cases(file):
    def case(id, op, x, kernel, stride=None, padding=(0, 0), dilation=(1, 1), ceil_mode=False, include_pad=True):
        dtype, draw, stride = DTYPES[id[-3:]], Draw(id), stride or kernel
        x = draw(*x, digits=1) if isinstance(x, tuple) else np.array(x)[None, None]
        window, leaf = ex.Window(x.shape[2:], kernel, stride, padding, dilation, ceil_mode), f64(exact(x, dtype))
        settings = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation,
                    "ceil_mode": ceil_mode}
        if op == "max_pool2d":
            y, backward = ex.max_pool2d(exact(x, dtype), window)
            theirs = F.max_pool2d(leaf, *settings.values())
        else:
            y, backward = ex.avg_pool2d(exact(x, dtype), window, include_pad)
            theirs = F.avg_pool2d(leaf, kernel, stride, padding, ceil_mode, include_pad)
            settings["count_include_pad"] = include_pad
        dy = draw(*y.shape, scale=1, digits=1)
        theirs.backward(f64(exact(dy, dtype)).detach())
        want = {"y": y, **backward(exact(dy, dtype))}
        file.agrees("PyTorch", want, arrays({"y": theirs, "dx": leaf.grad}))
        own = {"padding": (0, 0), "dilation": (1, 1), "ceil_mode": False}
        settings = {name: list(v) if isinstance(v, tuple) else v for name, v in settings.items() if v != own.get(name)}
        tol = tolerances(dict.fromkeys(want, 1e-13 if dtype == "float64" else 1e-6), want)
        file.add(id, op, dtype, **settings, x=tensor(x), dy=tensor(dy), expect=tensors(want, dtype), tol=tol)

    most, mean, around = "max_pool2d", "avg_pool2d", {"stride": (2, 2), "padding": (1, 1)}
    case("g_max_tail_dropped_f64", most, (1, 1, 5, 3), (2, 2))
    case("g_max_pad_f32", most, (1, 1, 3, 4), (3, 3), **around)
    case("g_max_dilation_pad_f32", most, (1, 1, 3, 3), (2, 2), (1, 2), (1, 1), (2, 2))
    case("g_max_ceil_f64", most, (1, 1, 4, 5), (2, 3), (3, 2), ceil_mode=True)
    case("g_max_ties_f32", most, [[1, 1, 0, 2], [1, 1, 2, 2], [-1, -1, 0, 0], [-1, -2, 0, 0]], (2, 2))
    case("g_max_negative_pad_f64", most, [[-1.5, -2], [-3, -0.5]], (2, 2), (1, 1), (1, 1))
    case("g_avg_overlap_f32", mean, (1, 1, 3, 3), (3, 2), (1, 1))
    case("g_avg_pad_counted_f64", mean, (1, 1, 3, 3), (3, 3), **around)
    case("g_avg_pad_left_out_f32", mean, (1, 1, 3, 3), (3, 3), **around, include_pad=False)
    case("g_avg_ceil_pad_counted_f32", mean, (1, 1, 4, 2), (3, 3), **around, ceil_mode=True)
    case("g_avg_ceil_pad_left_out_f64", mean, (1, 1, 4, 2), (3, 3), **around, ceil_mode=True, include_pad=False)
