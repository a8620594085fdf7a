"""Layers and optimizers in 50 digits: what the vectors expect, on any machine to the last bit.

Arrays are NumPy arrays of mpmath numbers. A layer returns its output and its backward: dy -> a dict of gradients.
Formulas as in the papers, nothing shared with Tandem or PyTorch; generate.py compares them with PyTorch."""
import itertools
import mpmath
import numpy as np

mp = mpmath.mp
mp.dps = 50
sqrt = np.frompyfunc(mp.sqrt, 1, 1)
exp = np.frompyfunc(mp.exp, 1, 1)
log = np.frompyfunc(mp.log, 1, 1)
isfinite = np.frompyfunc(mp.isfinite, 1, 1)


def exact(values, dtype="float64"):
    """The numbers that a tensor of this dtype holds."""
    to_mpf = np.frompyfunc(lambda v: mp.mpf(float(np.float32(v) if dtype == "float32" else v)), 1, 1)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(to_mpf(np.asarray(values, dtype=object)), dtype=object)


def zeros(shape):
    return exact(np.zeros(shape))


def positions(*shape):
    return itertools.product(*map(range, shape))


# ---- batch norm -----------------------------------------------------------------------------------------------------
def statistics(x, axis, mask=None):
    """Mean and biased variance per channel, count of values; mask: over all axes but the channels'."""
    rows = np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)
    keep = [True] * rows.shape[1] if mask is None else [bool(m) for m in np.asarray(mask).reshape(-1)]
    rows = rows[:, keep]
    n = rows.shape[1]
    mean = rows.sum(axis=1) / n
    return mean, ((rows - mean[:, None]) ** 2).sum(axis=1) / n, n


def batch_norm(x, gamma, beta, mean, var, eps, axis, mask=None, of_batch=True):
    """With the batch's own mean and var (of_batch), or with given ones, through which nothing flows back."""
    others = tuple(a for a in range(x.ndim) if a != axis % x.ndim)
    along = lambda v: np.expand_dims(v, others)  # noqa: E731
    total = lambda v: along(v.sum(axis=others))  # noqa: E731
    invstd = np.array([0 if v + eps == 0 else 1 / mp.sqrt(v + eps) for v in var], dtype=object)
    xhat = (x - along(mean)) * along(invstd)
    scale = along(invstd) if gamma is None else along(invstd * gamma)
    y = xhat if gamma is None else xhat * along(gamma)
    y = y if beta is None else y + along(beta)

    def backward(dy):
        flow = dy
        if of_batch:
            counts = np.ones(x.shape, dtype=object) if mask is None else np.asarray(mask)[..., None] * np.ones(
                x.shape, dtype=object)
            flow = dy - counts * (total(dy) + xhat * total(dy * xhat)) / total(counts)
        return {"dx": flow * scale, "dgamma": (dy * xhat).sum(axis=others), "dbeta": dy.sum(axis=others)}

    return y, backward


# ---- other layers ---------------------------------------------------------------------------------------------------
def linear(x, weight, bias):
    y = x @ weight.T if bias is None else x @ weight.T + bias

    def backward(dy):
        rows = dy.reshape(-1, dy.shape[-1])
        return {"dx": dy @ weight, "dweight": rows.T @ x.reshape(-1, x.shape[-1]), "dbias": rows.sum(axis=0)}

    return y, backward


def relu(x):
    on = np.frompyfunc(lambda v: int(v > 0), 1, 1)(x)
    y = np.frompyfunc(lambda v: v if v > 0 or mp.isnan(v) else mp.mpf(0), 1, 1)(x)
    return y, lambda dy: {"dx": np.frompyfunc(lambda o, g: g if o else mp.mpf(0), 2, 1)(on, dy)}


class Window:
    """A window sliding over an image: where tap (i, j) of output (p, q) lies in the image."""

    def __init__(self, size, kernel, stride=(1, 1), padding=(0, 0), dilation=(1, 1), ceil_mode=False):
        self.size, self.kernel, self.stride, self.padding, self.dilation = size, kernel, stride, padding, dilation
        self.out = tuple(self._extent(a, ceil_mode) for a in (0, 1))

    def _extent(self, a, ceil_mode):
        span = self.size[a] + 2 * self.padding[a] - self.dilation[a] * (self.kernel[a] - 1) - 1
        n = (-(-span // self.stride[a]) if ceil_mode else span // self.stride[a]) + 1
        # rounded up, the last window must still start inside the image or the padding before it
        return n - (ceil_mode and (n - 1) * self.stride[a] >= self.size[a] + self.padding[a])

    def place(self, out, tap):
        at = tuple(o * s - p + t * d
                   for o, s, p, t, d in zip(out, self.stride, self.padding, tap, self.dilation))
        return at if all(0 <= v < n for v, n in zip(at, self.size)) else None

    def taps(self, out):
        """(tap, position in the image) of the taps that fall inside."""
        return [(t, at) for t in positions(*self.kernel) if (at := self.place(out, t)) is not None]

    def padded_area(self, out):
        """The window's extent within the padded image: what average pooling with padding divides by."""
        starts = [o * s - p for o, s, p in zip(out, self.stride, self.padding)]
        ends = [min(b + k, n + p) for b, k, n, p in zip(starts, self.kernel, self.size, self.padding)]
        return (ends[0] - starts[0]) * (ends[1] - starts[1])


def conv2d(x, weight, bias, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
    n, outs, ins = x.shape[0], weight.shape[0], weight.shape[1]
    w = Window(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    y = zeros((n, outs) + w.out)
    # (image, output channel, output position, input channel, tap, input position)
    terms = [(b, o, out, o // (outs // groups) * ins + i, i, tap, at) for out in positions(*w.out)
             for tap, at in w.taps(out) for b, o, i in positions(n, outs, ins)]
    for b, o, out, c, i, tap, at in terms:
        y[(b, o) + out] += x[(b, c) + at] * weight[(o, i) + tap]
    if bias is not None:
        y = y + bias[:, None, None]

    def backward(dy):
        dx, dw = zeros(x.shape), zeros(weight.shape)
        for b, o, out, c, i, tap, at in terms:
            dx[(b, c) + at] += dy[(b, o) + out] * weight[(o, i) + tap]
            dw[(o, i) + tap] += dy[(b, o) + out] * x[(b, c) + at]
        return {"dx": dx, "dweight": dw, "dbias": dy.sum(axis=(0, 2, 3))}

    return y, backward


def max_pool2d(x, window):
    best = {}  # the first of equal values
    for b, c, *out in positions(*x.shape[:2], *window.out):
        places = [(b, c) + at for _, at in window.taps(out)]
        best[b, c, *out] = max(places, key=lambda at: (x[at], [-v for v in at]))
    y = zeros(x.shape[:2] + window.out)
    for out, at in best.items():
        y[out] = x[at]

    def backward(dy):
        dx = zeros(x.shape)
        for out, at in best.items():
            dx[at] += dy[out]
        return {"dx": dx}

    return y, backward


def avg_pool2d(x, window, count_include_pad=True):
    y = zeros(x.shape[:2] + window.out)
    share = {}
    for out in positions(*window.out):
        inside = [at for _, at in window.taps(out)]
        share[out] = inside, window.padded_area(out) if count_include_pad else len(inside)
        for b, c in positions(*x.shape[:2]):
            y[(b, c) + out] = sum(x[(b, c) + at] for at in inside) / share[out][1]

    def backward(dy):
        dx = zeros(x.shape)
        for out, (inside, area) in share.items():
            for at in inside:
                dx[(..., *at)] = dx[(..., *at)] + dy[(..., *out)] / area
        return {"dx": dx}

    return y, backward


def cross_entropy(logits, labels, reduction="mean", smoothing=0):
    """logits [N, C, ...], labels [N, ...]; backward takes the gradient of the loss, a number or like the labels."""
    classes = logits.shape[1]
    rows = np.moveaxis(logits, 1, -1)
    shifted = rows - rows.max(axis=-1)[..., None]
    log_p = shifted - log(exp(shifted).sum(axis=-1))[..., None]
    target = exact(np.eye(classes)[np.asarray(labels)]) * (1 - mp.mpf(smoothing)) + mp.mpf(smoothing) / classes
    losses = -(target * log_p).sum(axis=-1)
    count = losses.size if reduction == "mean" else 1
    loss = losses if reduction == "none" else np.array(losses.sum() / count, dtype=object)

    def backward(dloss):
        upstream = np.broadcast_to(np.asarray(dloss, dtype=object) / count, losses.shape)
        return {"dlogits": np.moveaxis((exp(log_p) - target) * upstream[..., None], -1, 1)}

    return loss, backward


# ---- optimizers -----------------------------------------------------------------------------------------------------
class SGD:
    def __init__(self, lr, momentum=0, dampening=0, weight_decay=0, nesterov=False):
        self.lr, self.momentum, self.nesterov = lr, mp.mpf(momentum), nesterov
        self.dampening, self.weight_decay, self.v = mp.mpf(dampening), mp.mpf(weight_decay), {}

    def step(self, key, p, g):
        g = g + self.weight_decay * p
        if self.momentum:
            v = self.v[key] = self.momentum * self.v[key] + (1 - self.dampening) * g if key in self.v else g
            g = g + self.momentum * v if self.nesterov else v
        return p - mp.mpf(self.lr) * g


class Adam:
    decoupled = False

    def __init__(self, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0):
        self.lr, self.betas, self.eps = lr, [mp.mpf(b) for b in betas], mp.mpf(eps)
        self.weight_decay, self.state = mp.mpf(weight_decay), {}

    def step(self, key, p, g):
        lr, (b1, b2) = mp.mpf(self.lr), self.betas
        if self.decoupled:
            p = p * (1 - lr * self.weight_decay)
        else:
            g = g + self.weight_decay * p
        t, m, v = self.state.get(key, (0, 0, 0))
        t, m, v = self.state[key] = t + 1, b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        return p - lr * (m / (1 - b1**t)) / (sqrt(v / (1 - b2**t)) + self.eps)


class AdamW(Adam):
    decoupled = True

    def __init__(self, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        super().__init__(lr, betas, eps, weight_decay)
