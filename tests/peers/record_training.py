#!/usr/bin/env python3
"""Trains w2 and w3 for 100 steps in float64 with PyTorch and prints every loss and the norm of every tensor at the end:
the numbers in tests/training_reference.json, which training_reference_test.cpp follows.

  PYTHON tests/peers/record_training.py > tests/training_reference.json

Weights, images and labels come from splitmix64 (the rule is in `uniform`), so that both sides make the same: tensor
number t of a network, counting from 1, from seed 10^9 t; the images of batch b from 10^12 + 10^9 b, its labels from
2 * 10^12 + 10^9 b, all channels-last. Four batches take turns.
"""
import json

import torch
from torch import nn

STEPS, BATCHES = 100, 4
MASK = (1 << 64) - 1


def splitmix64(x):
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def uniform(seed, count):
    """In [0, 1)."""
    return torch.tensor([(splitmix64(seed + i) >> 11) * 2.0**-53 for i in range(count)], dtype=torch.float64)


def numel(shape):
    return torch.Size(shape).numel()


class Weights:
    """Uniform with variance 2 / fan_in, in order of the network's tensors."""

    def __init__(self):
        self.made = 0

    def __call__(self, shape):
        self.made += 1
        fan_in = numel(shape[1:])
        return ((uniform(10**9 * self.made, numel(shape)) - 0.5) * (24 / fan_in)**0.5).reshape(shape)


def w2():
    weights, layers = Weights(), [nn.Flatten()]
    for n_in, n_out in ((784, 512), (512, 256), (256, 128)):
        dense = nn.Linear(n_in, n_out, bias=False, dtype=torch.float64)
        dense.weight.data = weights((n_out, n_in))
        layers += [dense, nn.BatchNorm1d(n_out, dtype=torch.float64), nn.ReLU()]
    last = nn.Linear(128, 10, dtype=torch.float64)
    last.weight.data, last.bias.data = weights((10, 128)), torch.zeros(10, dtype=torch.float64)
    return nn.Sequential(*layers, last)


def w3():
    weights, layers = Weights(), []
    for c_in, c_out, stride in ((1, 32, 1), (32, 32, 2), (32, 64, 1), (64, 64, 2)):
        conv = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False, dtype=torch.float64)
        conv.weight.data = weights((c_out, 3, 3, c_in)).permute(0, 3, 1, 2).contiguous()
        layers += [conv, nn.BatchNorm2d(c_out, dtype=torch.float64), nn.ReLU()]
    dense = nn.Linear(3136, 128, bias=False, dtype=torch.float64)
    # Tandem flattens height, width, channels; PyTorch channels, height, width.
    dense.weight.data = weights((128, 3136)).reshape(128, 7, 7, 64).permute(0, 3, 1, 2).reshape(128, 3136).contiguous()
    last = nn.Linear(128, 10, dtype=torch.float64)
    last.weight.data, last.bias.data = weights((10, 128)), torch.zeros(10, dtype=torch.float64)
    return nn.Sequential(*layers, nn.Flatten(), dense, nn.BatchNorm1d(128, dtype=torch.float64), nn.ReLU(), last)


def batch(index, size):
    images = uniform(10**12 + 10**9 * index, size * 784).reshape(size, 1, 28, 28)
    labels = (uniform(2 * 10**12 + 10**9 * index, size) * 10).long()
    return images, labels


def record(name, net, lr, size):
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    batches = [batch(i, size) for i in range(BATCHES)]
    losses = []
    for step in range(STEPS):
        images, labels = batches[step % BATCHES]
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    state = [v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")]
    return {"model": name, "lr": lr, "batch": size, "losses": losses,
            "norms": [v.double().norm().item() for v in state]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    networks = [record("w2", w2(), 0.1, 32), record("w3", w3(), 0.05, 8)]
    print(json.dumps({"made_with": "PyTorch " + torch.__version__, "networks": networks}, indent=0))
