"""fold_bn, recalibrate, merge_moments."""
import numpy as np
import torch.nn.functional as F

from . import exact as ex
from .exact import exact, mp
from .vector_file import DTYPES, Draw, VectorFile, arrays, f64, number, tensor, tensors

OPTIONAL = ("optional",)


def folding_file():
    file = VectorFile("gen_folding", "folding, recalibration, merging of moments", "Features that an engine may lack")
    fold_case(file, "g_fold_linear_no_bias_f32", "linear", (2, 2), (2, 2), bias=False)
    fold_case(file, "g_fold_linear_no_affine_f32", "linear", (2, 2), (2, 2), affine=False)
    fold_case(file, "g_fold_conv2d_f64", "conv2d", (1, 2, 2, 2), (2, 2, 1, 2))
    fold_case(file, "g_fold_conv2d_bare_f32", "conv2d", (1, 2, 2, 2), (2, 2, 1, 2), bias=False, affine=False, eps=1e-3)
    recalibrate_case(file, "g_recalibrate_ragged_f64", (4, 2), (2, 2))
    recalibrate_case(file, "g_recalibrate_image_f32", (1, 2, 2, 2), (2, 2, 2, 1))
    for id, sizes in (("pair", (2, 3)), ("ones", (1, 1)), ("empty_part", (3, 0, 2)), ("nothing", (0, 0)),
                      ("uneven", (1000, 1))):
        merge_case(file, f"g_merge_{id}", sizes)
    merge_case(file, "g_merge_far", (1, 2, 3, 4), center=1e6)
    return file


def fold_case(file, id, kind, x_shape, w_shape, bias=True, affine=True, eps=1e-5):
    dtype, draw = DTYPES[id[-3:]], Draw(id)
    shown = {"x": draw(*x_shape, digits=1), "weight": draw(*w_shape, digits=1), "bias": draw(2) if bias else None,
             "gamma": draw(2, scale=0.4, center=1) if affine else None, "beta": draw(2) if affine else None,
             "running_mean": draw(2), "running_var": abs(draw(2)) + 0.1}
    x, weight, b, gamma, beta, mean, var = [None if v is None else exact(v, dtype) for v in shown.values()]
    gain = (1 if gamma is None else gamma) / ex.sqrt(var + eps)
    folded = {"weight": weight * gain.reshape((2,) + (1,) * (weight.ndim - 1)),
              "bias": ((0 if b is None else b) - mean) * gain + (0 if beta is None else beta)}
    y, _ = getattr(ex, kind)(x, folded["weight"], folded["bias"])
    theirs = F.batch_norm(getattr(F, kind)(f64(x), f64(weight), f64(b)), f64(mean).detach(), f64(var).detach(),
                          f64(gamma), f64(beta), eps=eps)
    file.agrees("PyTorch", {"y": y}, arrays({"y": theirs}))
    file.add(id, "fold_bn", dtype, OPTIONAL, kind=kind, eps=eps, **tensors(shown),
             expect=tensors({**folded, "y": y}, dtype),
             tol={"all": [1e-10, 1e-11] if dtype == "float64" else [1e-5, 1e-5]})


def recalibrate_case(file, id, *shapes):
    dtype, draw = DTYPES[id[-3:]], Draw(id)
    batches = [draw(*shape, digits=1) for shape in shapes]

    def moments(x):
        mean, var, n = ex.statistics(exact(x, dtype), 1)
        return np.array([mean, var * n / (n - 1)])

    expect = {"mean_of_batches": sum(map(moments, batches)) / len(batches),
              "all_values": moments(np.concatenate([np.moveaxis(b, 1, -1).reshape(-1, 2) for b in batches]))}
    expect = {name: tensors({"running_mean": mean, "running_var": var}, dtype) for name, (mean, var) in expect.items()}
    file.add(id, "recalibrate", dtype, OPTIONAL, convention="pytorch", num_features=2, eps=1e-5, channel_axis=1,
             batches=[tensor(b) for b in batches], expect=expect,
             tol={"all": [1e-10, 1e-12] if dtype == "float64" else [1e-5, 1e-6]},
             note="either the mean over batches of their means and unbiased variances, or those of all values at once")


def merge_case(file, id, sizes, center=1):
    """Parts of a sample; what is expected is the merge of the numbers as they are written."""
    draw, parts = Draw(id), []
    for n in sizes:
        part = exact(draw(n, center=center))
        mean = part.sum() / max(n, 1)
        parts.append({"count": n, "mean": number(mean), "m2": number(((part - mean)**2).sum())})
    count = sum(part["count"] for part in parts)
    mean = sum(part["count"] * mp.mpf(part["mean"]) for part in parts) / max(count, 1)
    m2 = sum(mp.mpf(part["m2"]) + part["count"] * (mp.mpf(part["mean"]) - mean)**2 for part in parts)
    file.add(id, "merge_moments", tags=OPTIONAL, parts=parts,
             expect={"count": count, "mean": number(mean), "m2": number(m2)},
             tol={"mean": [1e-12, 1e-12], "m2": [1e-8, 1e-12] if center == 1 else [1e-8, 1e-6]})
