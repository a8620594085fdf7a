"""A file of cases, its numbers, and the comparison with other engines."""
import json
import math
import pathlib
import random

import keras
import mpmath
import numpy as np
import torch

torch.set_num_threads(1)
DTYPES = {"f32": "float32", "f64": "float64"}  # by the end of a case's id
# What is expected, to more digits than the tightest tolerance asks for; inputs (None) are written in full.
DIGITS = {"float64": 15, "float32": 9, None: 17}
BOUNDS = {"PyTorch": 1e-12, "Keras": 1e-6}  # they compute in float64 and in float32


class VectorFile:
    def __init__(self, name, category, note):
        self.path = pathlib.Path(__file__).parent.parent / f"{name}.json"
        self.category, self.note, self.cases, self.worst = category, note, [], {}

    def add(self, id, op, dtype="float64", tags=("core",), **rest):
        """Leaves out what is None, except for a momentum, where it means the cumulative average."""
        assert all(id != case["id"] for case in self.cases), id
        case = {"id": id, "op": op, "tags": list(tags), "dtype": dtype, **rest}
        self.cases.append({key: value for key, value in case.items() if value is not None or key == "momentum"})

    def agrees(self, peer, wants, gots):
        """gots, the peer's arrays by name, are wants' within the bound, relative to the largest value or to 1."""
        for name, got in gots.items():
            want = np.array([float(v) for v in np.ravel(wants[name])])
            difference = max(abs(np.ravel(np.asarray(got, dtype=np.float64)) - want)) / max(1, *abs(want))
            if difference > BOUNDS[peer]:
                raise ArithmeticError(f"{peer}'s {name} differs by {difference} in the case after {self.cases[-1:]}")
            self.worst[peer] = max(self.worst.get(peer, 0), difference)

    def write(self):
        checks = [f"{peer} agrees to {BOUNDS[peer]:g}" for peer in self.worst]
        versions = [f"{module.__name__} {module.__version__.split('+')[0]}" for module in (torch, keras, np, mpmath)]
        note = [self.note, "Made by generate.py in 50-digit arithmetic", ", ".join(checks), ", ".join(versions)]
        head = compact({"schema": "tandem-vectors/1", "category": self.category, "note": ". ".join(filter(None, note))})
        text = f'{head[:-1]},"cases":[\n' + ",\n".join(map(compact, self.cases)) + "\n]}\n"
        self.path.write_text(text)
        worst = "".join(f"; {peer} differs by {difference:.1e}" for peer, difference in self.worst.items())
        print(f"{self.path.name}: {len(self.cases)} cases, {len(text)} bytes{worst}")


def compact(value):
    return json.dumps(value, separators=(",", ":"))


def number(value, dtype=None):
    value = float(value)
    if not math.isfinite(value):
        return str(value)
    value = float(f"{value:.{DIGITS[dtype]}g}")
    is_short = value == int(value) and abs(value) < 1e15 and str(value) != "-0.0"
    return int(value) if is_short else value


def tensor(values, dtype=None):
    """A tensor of the file: an input, or (dtype given) what is expected in that dtype. None stays None."""
    if values is None:
        return None
    values = np.asarray(values, dtype=object)
    return {"shape": list(values.shape), "data": [number(v, dtype) for v in values.reshape(-1)]}


def tensors(values, dtype=None):
    return {name: tensor(value, dtype) for name, value in values.items()}


class Draw(random.Random):
    """Short decimals, which float32 cannot hold: readers must round them."""

    def __call__(self, *shape, scale=1.5, digits=2, center=0.0):
        count = math.prod(shape)
        return np.array([round(center + self.gauss(0, scale), digits) + 0.0 for _ in range(count)]).reshape(shape)


def tolerances(rules, *wants):
    """[rtol, atol] by name: atol is rtol of the largest value expected anywhere."""
    tol = {}
    for name, rtol in rules.items():
        values = [abs(float(v)) for want in wants if name in want for v in np.ravel(want[name])]
        if values:
            tol[name] = [rtol, rounded(rtol * 1.05 * max([v for v in values if math.isfinite(v)], default=0))]
    return tol


def rounded(value):
    return float(f"{value:.2g}")


def f64(value):
    """A leaf of PyTorch's from an exact array, or None."""
    return None if value is None else torch.tensor(np.asarray(value, dtype=np.float64), requires_grad=True)


def arrays(tensors):
    """NumPy's arrays of PyTorch's tensors by name, without those that are None."""
    return {name: value.detach().numpy() for name, value in tensors.items() if value is not None}
