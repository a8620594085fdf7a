"""batch_norm: every option of both conventions; batch_norm_shared, batch_norm_properties, momentum_conversion."""
import keras
import numpy as np
import torch
import torch.nn.functional as F

from . import exact as ex
from .exact import exact, mp
from .vector_file import DTYPES, Draw, VectorFile, arrays, f64, tensor, tensors, tolerances

RULES = {
    "float64": {"y": 1e-10, "dx": 1e-9, "dgamma": 1e-9, "dbeta": 1e-9, "running_mean": 1e-10, "running_var": 1e-10,
                "moving_mean": 1e-10, "moving_variance": 1e-10, "batch_mean": 1e-12, "batch_var": 1e-10},
    "float32": {"y": 1e-5, "dx": 2e-5, "dgamma": 2e-5, "dbeta": 2e-5, "running_mean": 1e-5, "running_var": 1e-5,
                "moving_mean": 1e-5, "moving_variance": 1e-5, "batch_mean": 1e-6, "batch_var": 1e-5},
}
# What most cases show, for the files must stay small.
BRIEF = {"train": ("y", "dx", "dgamma", "running_var", "moving_variance"), "eval": ("y", "dx")}


class BatchNorm:
    """The layer that a case describes."""

    def __init__(self, dtype, channels, convention="pytorch", eps=None, momentum="own", scale=True, shift=True,
                 track=True, axis=None, gamma=None, beta=None, running=None, batches=0):
        self.keras, self.convention = convention == "keras", convention
        self.own = {"eps": 1e-3, "momentum": 0.99} if self.keras else {"eps": 1e-5, "momentum": 0.1}
        self.own.update(scale=True, center=True, affine=True, track_running_stats=True)
        self.dtype, self.channels, self.track, self.batches = dtype, channels, track, batches
        self.eps = self.own["eps"] if eps is None else eps
        self.momentum = self.own["momentum"] if momentum == "own" else momentum
        self.axis = (-1 if self.keras else 1) if axis is None else axis
        self.names = ("moving_mean", "moving_variance") if self.keras else ("running_mean", "running_var")
        start = {"gamma": gamma if scale else None, "beta": beta if shift else None}
        self.gamma, self.beta = [None if v is None else exact(v, dtype) for v in start.values()]
        start.update(zip([name + "0" for name in self.names], running or (None, None)))
        self.start = {name: tensor(value) for name, value in start.items() if value is not None}
        if batches:
            self.start["num_batches_tracked0"] = batches
        self.mean, self.var = [exact(v, dtype) for v in running or (np.zeros(channels), np.ones(channels))]

    def describe(self):
        """Its settings where they are not the convention's own, and its starting values where they were given."""
        settings = {"eps": self.eps, "momentum": self.momentum}
        if self.keras:
            settings.update(scale=self.gamma is not None, center=self.beta is not None)
        else:
            settings.update(affine=self.gamma is not None, track_running_stats=self.track)
        return {"convention": self.convention, "num_features": self.channels, "channel_axis": self.axis,
                **{name: value for name, value in settings.items() if value != self.own[name]}, **self.start}

    def new_weight(self):
        """Of the latest batch in the running statistics."""
        if self.keras:
            return 1 - mp.mpf(self.momentum)
        return mp.mpf(1) / self.batches if self.momentum is None else mp.mpf(self.momentum)

    def __call__(self, x, train, mask=None):
        """y, the gradients as a function of dy, and the statistics afterwards."""
        after, mean, var, of_batch = {}, self.mean, self.var, train or not self.track
        if of_batch:
            mean, var, n = ex.statistics(x, self.axis, mask)
            after = {"batch_mean": mean, "batch_var": var}
        y, backward = ex.batch_norm(x, self.gamma, self.beta, mean, var, self.eps, self.axis, mask, of_batch)
        if train and self.track:
            self.batches += 1
            w, moved = self.new_weight(), var if self.keras else var * n / (n - 1)
            self.mean, self.var = (1 - w) * self.mean + w * mean, (1 - w) * self.var + w * moved
        if self.track:
            after.update(zip(self.names, (self.mean, self.var)))
        absent = [name for name, value in (("dgamma", self.gamma), ("dbeta", self.beta)) if value is None]
        return y, lambda dy: {name: v for name, v in backward(dy).items() if name not in absent}, after


def torch_step(layer, before, x, dy, train):
    """PyTorch's results for one step of `layer`, whose running statistics were `before`."""
    leaf, gamma, beta = f64(x), f64(layer.gamma), f64(layer.beta)
    mean, var = [f64(v).detach() if layer.track else None for v in before]
    weight = float(layer.new_weight()) if layer.batches else 0
    y = F.batch_norm(leaf.movedim(layer.axis, 1), mean, var, gamma, beta, train or not layer.track, weight,
                     max(layer.eps, 1e-300)).movedim(1, layer.axis)  # PyTorch refuses 0
    y.backward(f64(dy).detach())
    got = {"y": y, "dx": leaf.grad, "dgamma": gamma is not None and gamma.grad, "dbeta": beta is not None and beta.grad}
    if not layer.keras:
        got.update(running_mean=mean, running_var=var)
    return arrays({name: value for name, value in got.items() if value is not False})


def keras_step(layer, before, x, train, mask):
    peer = keras.layers.BatchNormalization(axis=layer.axis, momentum=layer.momentum, epsilon=layer.eps,
                                           scale=layer.gamma is not None, center=layer.beta is not None)
    peer.build(x.shape)
    values = [v for v in (layer.gamma, layer.beta) if v is not None] + list(before)
    peer.set_weights([np.asarray(v, dtype=np.float32) for v in values])
    y = peer(np.asarray(x, dtype=np.float32), training=train, mask=None if mask is None else torch.tensor(mask))
    return arrays({"y": y, "moving_mean": peer.moving_mean.value, "moving_variance": peer.moving_variance.value})


def strided(view, owner):
    """How `view`, of NumPy's, lies in the memory of `owner`."""
    offset = view.__array_interface__["data"][0] - owner.__array_interface__["data"][0]
    return {"storage": tensor(owner.reshape(-1)), "shape": list(view.shape),
            "strides": [s // owner.itemsize for s in view.strides], "offset": offset // owner.itemsize}


def batch_norm_case(file, id, shape, modes="t", tags=("core",), note=None, rules=None, tol=None, x=None, dy=None,
                    x_owner=None, dy_owner=None, mask=None, check=True, full=False, shown=None, affine=True, **options):
    """`modes`: t(rain) and e(val), a step each. x, dy: instead of drawn ones; views of the owners' memory, if given.
    `full` shows everything, `shown` these quantities. `check`: PyTorch and Keras are accurate enough here."""
    draw, dtype = Draw(id), DTYPES[id[-3:]]
    channels = shape[options.get("axis", -1 if options.get("convention") == "keras" else 1)]
    for name, center in (("gamma", 1.0), ("beta", 0.0)):
        options.setdefault(name, draw(channels, scale=0.4, center=center) if affine else None)
    layer = BatchNorm(dtype, channels, **options)
    description, steps, wants = layer.describe(), [], []
    for mode in [{"t": "train", "e": "eval"}[letter] for letter in modes]:
        xs = draw(*shape, digits=1) + 0.5 if x is None else x
        dys = draw(*shape, scale=1, digits=1) if dy is None else dy
        xe, dye, before, train = exact(xs, dtype), exact(dys, dtype), (layer.mean, layer.var), mode == "train"
        y, backward, after = layer(xe, train, mask if train else None)
        want = {"y": y, **backward(dye), **after}
        if check and mask is None:
            file.agrees("PyTorch", want, torch_step(layer, before, xe, dye, train))
        if check and layer.keras:
            file.agrees("Keras", want, keras_step(layer, before, xe, train, mask))
        step = {"mode": mode, "x": tensor(xs), "dy": tensor(dys)}
        if x_owner is not None:
            step["x_view"] = strided(xs, x_owner)
        if dy_owner is not None:
            step["dy_view"] = strided(dys, dy_owner)
        if mask is not None:
            step["mask"] = tensor(mask)
        want = {name: v for name, v in want.items() if full or name in (shown or BRIEF[mode])}
        step["expect"] = tensors(want, dtype)
        if full and layer.track and not layer.keras:
            step["expect"]["num_batches_tracked"] = layer.batches
        steps.append(step)
        wants.append(want)
    special = {name: v for name, v in (tol or {}).items() if any(name in want for want in wants)}
    file.add(id, "batch_norm", dtype, tags, **description, steps=steps,
             tol={**tolerances({**RULES[dtype], **(rules or {})}, *wants), **special}, note=note)


def batch_norm_file():
    file = VectorFile("gen_batch_norm", "batch_norm options", "Settings and starting values that a case does not give "
                      "are PyTorch's. dy_view is to dy what x_view is to x")

    def case(id, *args, **options):
        batch_norm_case(file, id, *args, **options)

    plain, view = {"affine": False}, {"affine": False, "track": False, "tags": ("core", "view")}
    other = ([0.5, -1.5], [0.25, 4])
    case("g_bn_momNone_f64", (3, 1), "te", momentum=None, full=True, **plain)
    case("g_bn_momNone_late_f32", (3, 1), "tt", momentum=None, batches=7, running=([0.5], [2]), **plain,
         note="the counter starts at 7: the next batch weighs 1/8")
    case("g_bn_mom0_f64", (3, 1), "te", momentum=0.0, **plain)
    case("g_bn_mom0.3_f64", (2, 2, 2), "et", momentum=0.3, running=other, batches=3, **plain)
    case("g_bn_mom0.9_f32", (2, 2, 2), momentum=0.9, running=other, full=True, **plain)
    case("g_bn_affine0_f64", (3, 2), **plain)
    case("g_bn_affine0_track0_f32", (3, 1), "te", track=False, full=True, **plain)
    case("g_bn_track0_f64", (2, 2, 2), "e", track=False)
    case("g_bn_axis_last_f32", (2, 1, 2, 2), axis=-1, full=True)
    case("g_bn_axis2_f32", (2, 2, 2, 1), axis=2, **plain)
    case("g_bn_4d_f64", (2, 2, 1, 2))
    case("g_bn_5d_f32", (1, 2, 3, 1, 1))
    case("g_bn_trap_L_is_E_f32", (2, 2, 2), axis=-1, shown=("y",), **plain,
         note="square: the wrong axis would go unnoticed")
    case("g_bn_batch1_conv_f32", (1, 2, 2, 2), **plain)
    case("g_bn_n2_f64", (2, 2), check=False, tol={"dx": [0, 1e-12]}, **plain, note="y is near +-1, dx near 0")
    case("g_bn_eps0_f64", (3, 2), eps=0.0, track=False, **plain)
    case("g_bn_eps0.1_f64", (2, 2), "e", eps=0.1, running=([1, -2], [0, 3]), full=True)
    case("g_bn_gamma0_f32", (3, 2), gamma=[0.0, -1.5], track=False, note="a gain of 0: dx is 0, dgamma is not")
    case("g_bn_eval_only_f32", (1, 3), "e", running=([0.5, -1, 2], [0.25, 4, 1e-4]))
    case("g_bn_dy_ones_f64", (3, 1), dy=np.ones((3, 1)), tol={"dx": [0, 1e-14], "dgamma": [0, 1e-14]}, track=False,
         note="the sum of y does not depend on x: dx and dgamma are 0 up to rounding")
    case("g_bn_dy_zero_f32", (3, 1), dy=np.zeros((3, 1)), track=False)

    draw, as_strided = Draw("views"), np.lib.stride_tricks.as_strided
    owner = draw(2, 3, digits=1)
    case("g_bn_view_transposed_f32", (3, 2), x=owner.T, x_owner=owner, **view)
    owner = draw(2, 2, 2, digits=1)
    case("g_bn_view_nhwc_f32", (2, 2, 2), x=owner.transpose(0, 2, 1), x_owner=owner, **view)
    owner = draw(7, 4, digits=1)
    case("g_bn_view_stepped_f64", (3, 2), x=owner[1::2, 1::2], x_owner=owner, **view)
    owner = draw(1, 2, 2, digits=1)
    case("g_bn_view_expanded_f32", (3, 2, 2), x=as_strided(owner, (3, 2, 2), (0, 16, 8)), x_owner=owner, **view,
         note="the same sample three times, by stride 0")
    owner = np.array([0.5])
    case("g_bn_view_dy_expanded_f64", (3, 2), dy=as_strided(owner, (3, 2), (0, 0)), dy_owner=owner, **view,
         tol={"dx": [0, 1e-14]})

    shared_case(file, "g_shared_f32", (2, 2), (3, 2))
    properties_case(file, "g_properties_pytorch_f64", (4, 2), "pytorch")
    properties_case(file, "g_properties_keras_f32", (2, 3, 2), "keras")
    return file


def shared_case(file, id, *shapes):
    """One layer called on x1, then on x2."""
    draw, dtype = Draw(id), DTYPES[id[-3:]]
    layer = BatchNorm(dtype, 2, gamma=draw(2, scale=0.4, center=1), beta=draw(2))
    case, want = layer.describe(), {}
    for i, shape in enumerate(shapes, 1):
        x, dy = case[f"x{i}"], case[f"dy{i}"] = draw(*shape, digits=1), draw(*shape, digits=1)
        want[f"y{i}"], backward, after = layer(exact(x, dtype), True)
        grads = backward(exact(dy, dtype))
        want[f"dx{i}"] = grads.pop("dx")
        want.update({name: want.get(name, 0) + grad for name, grad in grads.items()})
        case.update({name: tensor(case[name]) for name in (f"x{i}", f"dy{i}")})
    want.update({name: after[name] for name in layer.names})
    rules = {name: RULES[dtype][name.rstrip("12")] for name in want}
    file.add(id, "batch_norm_shared", dtype, **case, tol=tolerances(rules, want),
             expect={**tensors(want, dtype), "num_batches_tracked": layer.batches})


def properties_case(file, id, shape, convention):
    draw, dtype = Draw(id), DTYPES[id[-3:]]
    layer = BatchNorm(dtype, shape[-1], convention, eps=1e-10, gamma=draw(shape[-1], scale=0.3, center=1),
                      beta=draw(shape[-1]))
    checks = ["dx_sums_to_zero", "dx_orthogonal_to_xhat", "constant_dy_gives_zero_dx", "y_has_mean_beta",
              "y_has_variance_gamma_squared", "eval_rows_independent", "eval_changes_nothing",
              "train_ignores_running_statistics", "shift_invariant", "scale_invariant", "permutation_equivariant"]
    file.add(id, "batch_norm_properties", dtype, **layer.describe(), x=tensor(draw(*shape, digits=1)),
             dy=tensor(draw(*shape, digits=1)), checks=checks,
             tol={"all": [1e-8, 1e-8] if dtype == "float64" else [1e-4, 1e-4]})


def keras_file():
    file = VectorFile("gen_keras", "batch_norm, Keras convention", "moving=momentum*moving+(1-momentum)*batch, biased "
                      "variance. Keras divides masked sums by count+1e-7, so float64 is compared to 2e-6 there")
    tags = ("core", "keras")

    def case(id, *args, **options):
        batch_norm_case(file, id, *args, convention="keras", **{"tags": tags, **options})

    bare = {"scale": False, "shift": False}
    case("g_keras_default_f64", (3, 1), "te", full=True)
    case("g_keras_default_f32", (2, 2, 2))
    case("g_keras_axis1_f32", (2, 2, 2, 1), axis=1, **bare)
    case("g_keras_nhwc_f64", (1, 2, 2, 2), **bare)
    case("g_keras_mom0_f64", (3, 1), "te", momentum=0.0, **bare)
    case("g_keras_mom0.5_f32", (3, 1), "tt", momentum=0.5, running=([1], [0.5]), **bare)
    case("g_keras_no_scale_f64", (3, 1), scale=False, shown=("y", "dx", "dbeta", "moving_variance"))
    case("g_keras_no_center_f32", (3, 1), shift=False)
    case("g_keras_batch1_train_f64", (1, 2), tol={"dx": [0, 1e-12], "dgamma": [0, 1e-12]}, check=False,
         note="one value per channel: y is exactly beta, the moving variance shrinks towards 0")
    case("g_keras_batch1_train_f32", (1, 2), check=False, **bare)
    masked = {"tags": ("optional", "keras", "mask"), **bare,
              "note": "masked positions do not count in the statistics, but are normalised with them"}
    case("g_keras_mask_f64", (2, 2, 2), mask=[[1, 1], [1, 0]], full=True, rules=dict.fromkeys(RULES["float64"], 2e-6),
         **masked)
    case("g_keras_mask_f32", (1, 3, 2), mask=[[1, 0, 1]], **masked)
    for m in (0.0, 0.9, 1.0):
        file.add(f"g_convert_momentum_{m:g}", "momentum_conversion", keras_momentum=m,
                 expect={"pytorch_momentum": 1 - m}, tol={"pytorch_momentum": [0, 1e-15]})
    return file
