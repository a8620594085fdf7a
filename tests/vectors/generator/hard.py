"""batch_norm where numerics are hard, and on large generated inputs."""
import math

import numpy as np
import torch
import torch.nn.functional as F

from .batch_norm import RULES, batch_norm_case
from .vector_file import DTYPES, Draw, VectorFile, number, rounded

scaled = np.vectorize(lambda value, scale: float(f"{value * scale:.3g}"))


def half_ulp(dtype, value):
    """What rounding this value to dtype costs."""
    return float(np.spacing(np.float32(value) if dtype == "float32" else np.float64(value))) / 2


def hard_file():
    file = VectorFile("gen_hard", "batch_norm hard numerics", "tol: what is reached with the mean rounded to the "
                      "dtype; tol_best: with the mean in float64")
    brief, running = ("y", "dx", "batch_var"), ("y", "dx", "batch_mean", "running_mean", "running_var")

    def case(id, x, **options):
        x = np.array(x)
        batch_norm_case(file, id, x.shape, x=x, check=False,
                        **{"track": False, "shown": brief, "affine": False, "tags": ("hard",), **options})

    for kind, power in (("f32", 4), ("f32", 6), ("f64", 6), ("f64", 12)):
        id, dtype, mean = f"g_hard_mean1e{power}_{kind}", DTYPES[kind], 10.0**power
        x = mean + (np.array([[1], [-1]] * 2) if power == 12 else Draw(id + " x")(4, 1, scale=1))
        half = half_ulp(dtype, mean)
        dx = 8 * half + RULES[dtype]["dx"]  # of the size of dy: what is left of it may be small
        tol = {"dx": [dx, rounded(2 * dx)], "y": [0, rounded(8 * half + RULES[dtype]["y"])],
               "batch_mean": [rounded(4 * half / mean), 0], "running_mean": [rounded(8 * half / mean), 0]}
        rules = {name: 8 * half + RULES[dtype][name] for name in ("batch_var", "running_var")}
        case(id, x, rules=rules, tol=tol, **({"track": True, "shown": running} if power == 6 else {}))
        if kind == "f32":
            file.cases[-1]["tol_best"] = {"y": [0, 2e-6]}
    exactly = {"y": [0, 0], "dgamma": [0, 0], "batch_var": [0, 0]}
    for kind, value, n in (("f32", 0.1, 16), ("f32", 1e8, 5), ("f64", 0.1, 3)):
        case(f"g_hard_const{value:g}_n{n}_{kind}", [[value]] * n, gamma=[2.0], beta=[0.25], shown=tuple(exactly),
             tol=exactly, note="a constant channel gives exactly beta")
    case("g_hard_const0.1_eps0_f32", [[0.1]] * 4, eps=0.0, tags=("hard", "policy"), shown=("y", "batch_var"),
         tol=exactly, note="0/0: beta")

    draw = Draw("hard")
    unit = draw(3, 2, scale=1, digits=1)
    wide = {"rules": {"y": 1e-4, "dx": 1e-3, "running_var": 1e-4}, "tol": {"batch_var": None}}
    case("g_hard_scale1e-40_f32", scaled(unit, 1e-40), **wide)
    case("g_hard_scale1e-25_eps0_f32", scaled(unit, 1e-25), eps=0.0, **wide,
         note="the variance, 1e-50, exists in float64 only")
    case("g_hard_scale3e18_f32", scaled(unit, 3e18), track=True, shown=running, **wide,
         note="the variance still fits into float32")
    case("g_hard_scale1e38_f32", scaled(unit, 1e38), rules=wide["rules"],
         tol={"batch_var": None, "dx": [1e-3, 1.5e-45]})
    case("g_hard_scale1e-150_f64", scaled(unit, 1e-150))
    case("g_hard_scale1e150_f64", scaled(unit, 1e150), tol={"dx": [1e-6, 0]})
    one_nan, two_infs = unit.copy(), unit.copy()
    one_nan[1, 0], two_infs[0, 0], two_infs[2, 0] = math.nan, math.inf, -math.inf
    case("g_hard_nan_channel0_f32", one_nan, tags=("hard", "nonfinite"), track=True, shown=running,
         note="channel 1 is not touched; channel 0 is non-finite, its running statistics may stay as they were")
    case("g_hard_inf_both_f64", two_infs, tags=("hard", "nonfinite"))
    case("g_hard_first_is_outlier_f32", np.concatenate([[[1e6]], draw(7, 1, scale=1, digits=1)]),
         shown=("y", "batch_var"), note="a shift by the first value loses the others")
    case("g_hard_n2_f32", [[0.7, -3.0], [0.8, 5.0]], tol={"dx": [0, 2e-3]})
    batch_norm_case(file, "g_hard_eval_tiny_var_f32", (1, 2), "e", running=([0.5, 100], [1e-12, 1e-8]), tags=("hard",),
                    rules={"y": 1e-4}, note="the running variance drowns in eps")
    return file


def uniforms(seed, count):
    """splitmix64(seed + i), its upper 53 bits as a number in [0, 1)."""
    z = np.arange(count, dtype=np.uint64) + np.uint64((seed + 0x9E3779B97F4A7C15) % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def generated_file():
    file = VectorFile("gen_generated", "batch_norm, large generated inputs", "Sums here are exact (fsum)")
    assert list(uniforms(4242, 3)) == [0.8410558357824134, 0.6899394167998875, 0.47798133760688477]
    generated_case(file, "g_gen_N140000_f32", (140000, 2), -1, "keras", seed=7, center=3.0, scale=2.0)
    generated_case(file, "g_gen_C65536_f32", (3, 65536), 1, "pytorch", seed=11, center=0.0, scale=1.0)
    generated_case(file, "g_gen_image_f64", (2, 3, 150, 130), 1, "pytorch", seed=2**63 + 5, center=-100.0, scale=4.0)
    return file


def generated_case(file, id, shape, axis, convention, **rule):
    dtype, count, channels = DTYPES[id[-3:]], math.prod(shape), shape[axis]
    x = rule["center"] + rule["scale"] * (uniforms(rule["seed"], count) - 0.5)
    x = x.astype(dtype).astype(np.float64).reshape(shape)
    rows = np.moveaxis(x, axis, 0).reshape(channels, -1)
    n, is_keras = rows.shape[1], convention == "keras"
    eps, weight = (1e-3, 1 - 0.99) if is_keras else (1e-5, 0.1)

    def moments(c):
        mean = math.fsum(rows[c]) / n
        rest = rows[c] - mean  # its own mean is what rounding left over
        return mean, math.fsum(rest * rest) / n - (math.fsum(rest) / n)**2

    some = sorted({0, 1, channels // 2, channels - 1})
    at = sorted({0, 1, count // 3, count // 2, count - 1})
    y = []
    for i in at:
        mean, var = moments(np.unravel_index(i, shape)[axis])
        y.append((x.flat[i] - mean) / math.sqrt(var + eps))
    mean, var = np.array([moments(c) for c in some]).T
    names = ("moving_mean", "moving_variance") if is_keras else ("running_mean", "running_var")
    moved = [weight * mean, 1 - weight + weight * var * (1 if is_keras else n / (n - 1))]
    expect = {"channels": some, "batch_mean": mean.tolist(), "batch_var": var.tolist(),
              **{name: value.tolist() for name, value in zip(names, moved)}, "y_at": [[i, v] for i, v in zip(at, y)]}
    half = half_ulp(dtype, max(1.0, abs(rule["center"]) + rule["scale"]))
    tol = {"batch_mean": [rounded(2 * half), 1e-7 if dtype == "float32" else 1e-12], "batch_var": [1e-5, 1e-9],
           names[0]: [1e-6, 1e-7], names[1]: [1e-5, 1e-9], "y": [1e-5, rounded(4 * half + 1e-6)]}
    theirs = F.batch_norm(torch.tensor(x).movedim(axis, 1), None, None, training=True, eps=eps).movedim(1, axis)
    file.agrees("PyTorch", {"y": y}, {"y": [float(theirs.reshape(-1)[i]) for i in at]})
    bare = {"scale": False, "center": False} if is_keras else {"affine": False}
    file.add(id, "batch_norm_generated", dtype, ("large",), convention=convention, num_features=channels,
             channel_axis=axis, **bare, mode="train",
             x_gen={"kind": "splitmix64-uniform", **rule, "shape": list(shape)},
             x_check=[[i, number(x.flat[i], "float32")] for i in at], expect=expect, tol=tol)
