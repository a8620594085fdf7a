"""optimizer, train_network."""
import numpy as np
import torch
import torch.nn.functional as F

from . import exact as ex
from .batch_norm import BatchNorm
from .exact import exact, mp
from .vector_file import DTYPES, Draw, VectorFile, arrays, f64, number, tensor, tensors


def optimizers_file():
    file = VectorFile("gen_optimizers", "optimizer trajectories, 10 steps", "p is compared after every step")

    def case(id, *args, **options):
        optimizer_case(file, id, *args, **options)

    falling = [0.2, 0.2, 0.15, 0.15, 0.1, 0.1, 0.05, 0.02, 0.0, 0.3]
    case("g_sgd_plain_f32", "SGD", with_loss=True)
    case("g_sgd_dampening_decay_f32", "SGD", momentum=0.5, dampening=0.9, weight_decay=0.01)
    case("g_sgd_nesterov_f64", "SGD", momentum=0.9, nesterov=True)
    case("g_sgd_schedule_f64", "SGD", falling, momentum=0.9)
    case("g_sgd_zero_grad_f32", "SGD", zero=(0, 3, 4), momentum=0.9, weight_decay=0.1, with_loss=True)
    case("g_adam_f32", "Adam", with_loss=True)
    case("g_adam_betas0_f32", "Adam", betas=[0.0, 0.9])
    case("g_adam_eps_f64", "Adam", eps=0.1)
    case("g_adam_schedule_f32", "Adam", falling)
    case("g_adamw_decay_f32", "AdamW", weight_decay=0.1)
    case("g_adamw_schedule_f64", "AdamW", falling, betas=[0.8, 0.99], weight_decay=0.3, zero=(1, 2))
    return file


def optimizer_case(file, id, name, lrs=(0.1,) * 10, zero=(), with_loss=False, **hyper):
    dtype, draw, hyper = DTYPES[id[-3:]], Draw(id), {"lr": lrs[0], **hyper}
    problem = {"a": (abs(draw(1)) + 0.5).round(2), "t": draw(1), "p0": draw(1),
               "noise": draw(10, 1, scale=0.4, digits=1)}
    a, t, p, noise = [exact(v, dtype) for v in problem.values()]
    ours, leaf = getattr(ex, name)(**hyper), f64(p)
    theirs = getattr(torch.optim, name)([leaf], **hyper)
    after, after_theirs, losses = [], [], []
    for s, lr in enumerate(lrs):
        gradient = lambda at: 0 * at if s in zero else a * (at - t) + noise[s]  # noqa: B023, E731
        losses.append((a * (p - t)**2).sum() / 2)
        ours.lr = theirs.param_groups[0]["lr"] = lr
        p = ours.step("p", p, gradient(p))
        leaf.grad = f64(gradient(exact(leaf.detach().numpy()))).detach()
        theirs.step()
        after.append(p)
        after_theirs.append(leaf.detach().numpy().copy())
    file.agrees("PyTorch", {"p": np.array(after)}, {"p": after_theirs})
    expect = {"p_after_step": tensor(np.array(after), dtype)}
    if with_loss:
        expect["quadratic_loss_before_step"] = [number(loss, dtype) for loss in losses]
    file.add(id, "optimizer", dtype, optimizer=name, hyper=hyper, lr_per_step=list(lrs),
             problem={**tensors(problem), "zero_grad_steps": list(zero)}, expect=expect,
             tol={"p": [1e-10, 1e-11] if dtype == "float64" else [2e-5, 1e-5]})


# ---- networks: a list of layers as the file describes them, with arrays for weight0 and bias0 ------------------------
class Network:
    """In exact arithmetic."""

    def __init__(self, layers, dtype):
        self.layers = layers
        self.values = [{name: exact(layer[name + "0"], dtype) for name in ("weight", "bias") if name + "0" in layer}
                       for layer in layers]
        self.norms = [BatchNorm(dtype, layer["features"], momentum=layer.get("momentum", 0.1), eps=layer.get("eps"))
                      if "features" in layer else None for layer in layers]

    def forward(self, x, train):
        """The logits, and dy -> the gradients of each layer's values."""
        backs = []
        for layer, values, norm in zip(self.layers, self.values, self.norms):
            x, back = self._layer(layer, norm, x, values.get("weight"), values.get("bias"), train)
            backs.append(back)

        def backward(dy):
            grads = []
            for back, values in zip(reversed(backs), reversed(self.values)):
                found = back(dy)
                dy = found["dx"]
                grads.insert(0, {name: found["d" + name] for name in values})
            return grads

        return x, backward

    def _layer(self, layer, norm, x, weight, bias, train):
        kind, shape = layer["type"], x.shape
        if kind == "linear":
            return ex.linear(x, weight, bias)
        if kind == "conv2d":
            return ex.conv2d(x, weight, bias, padding=(layer.get("padding", 0),) * 2)
        if kind == "relu":
            return ex.relu(x)
        if kind == "maxpool2":
            return ex.max_pool2d(x, ex.Window(shape[2:], (2, 2), (2, 2)))
        if kind == "flatten":
            return x.reshape(shape[0], -1), lambda dy: {"dx": dy.reshape(shape)}
        norm.gamma, norm.beta = weight, bias
        y, backward, _ = norm(x, train)
        names = {"dgamma": "dweight", "dbeta": "dbias"}
        return y, lambda dy: {names.get(name, name): v for name, v in backward(dy).items()}


def torch_network(layers, dtype):
    nn, modules = torch.nn, []
    for layer in layers:
        bias = "bias0" in layer
        modules.append({
            "linear": lambda d: nn.Linear(d["in"], d["out"], bias=bias),
            "conv2d": lambda d: nn.Conv2d(d["in"], d["out"], d["kernel"], padding=d.get("padding", 0), bias=bias),
            "batchnorm1d": lambda d: nn.BatchNorm1d(d["features"], d.get("eps", 1e-5), d.get("momentum", 0.1)),
            "batchnorm2d": lambda d: nn.BatchNorm2d(d["features"], d.get("eps", 1e-5), d.get("momentum", 0.1)),
            "relu": lambda d: nn.ReLU(),
            "maxpool2": lambda d: nn.MaxPool2d(2),
            "flatten": lambda d: nn.Flatten(),
        }[layer["type"]](layer).double())
        for name in ("weight", "bias"):
            if name + "0" in layer:
                getattr(modules[-1], name).data = f64(exact(layer[name + "0"], dtype)).detach()
    return nn.Sequential(*modules)


def starting_values(draw, layer):
    """The layer with weight0 and bias0, if it has any."""
    if "features" in layer:
        n = layer["features"]
        return {**layer, "weight0": draw(n, scale=0.2, center=1), "bias0": draw(n, scale=0.2)}
    if "out" not in layer:
        return layer
    window = (layer["kernel"], layer["kernel"]) if layer["type"] == "conv2d" else ()
    layer = {**layer, "weight0": draw(layer["out"], layer["in"], *window, scale=0.6)}
    return layer if layer.get("bias") is False else {**layer, "bias0": draw(layer["out"], scale=0.2)}


def network_case(file, id, layers, optimizer, hyper, x_shape, accumulate=1, note=None):
    """Ten steps of two classes."""
    dtype, draw = DTYPES[id[-3:]], Draw(id)
    layers = [starting_values(draw, layer) for layer in layers]
    net, peer = Network(layers, dtype), torch_network(layers, dtype)
    ours, theirs = getattr(ex, optimizer)(**hyper), getattr(torch.optim, optimizer)(peer.parameters(), **hyper)
    steps = []
    for s in range(10):
        micro, total = [], [{name: 0 for name in values} for values in net.values]
        theirs.zero_grad()
        for _ in range(accumulate):
            x, labels = draw(*x_shape, digits=1), [draw.randrange(2) for _ in range(x_shape[0])]
            logits, backward = net.forward(exact(x, dtype), True)
            loss, loss_backward = ex.cross_entropy(logits, labels)
            grads = backward(loss_backward(mp.mpf(1) / accumulate)["dlogits"])
            total = [{name: sums[name] + more[name] for name in sums} for sums, more in zip(total, grads)]
            peer_loss = F.cross_entropy(peer(f64(exact(x, dtype)).detach()), torch.tensor(labels))
            (peer_loss / accumulate).backward()
            file.agrees("PyTorch", {"loss": loss}, {"loss": peer_loss.item()})
            micro.append({"x": tensor(x), "labels": labels, "loss": number(loss.item(), dtype)})
        steps.append({"micro": micro, **({"grads": [tensors(g, dtype) for g in total]} if s == 0 else {})})
        for i, values in enumerate(net.values):
            values.update({name: ours.step((i, name), value, total[i][name]) for name, value in values.items()})
        theirs.step()
    final = []
    for values, norm, module in zip(net.values, net.norms, peer):
        if norm:
            values = {**values, "running_mean": norm.mean, "running_var": norm.var}
        state = arrays(dict(module.state_dict()))
        file.agrees("PyTorch", values, {name: state[name] for name in values})
        final.append({**tensors(values, dtype), **({"num_batches_tracked": norm.batches} if norm else {})})
    eval_x = draw(*x_shape, digits=1)
    logits, _ = net.forward(exact(eval_x, dtype), False)
    file.agrees("PyTorch", {"logits": logits}, arrays({"logits": peer.eval()(f64(exact(eval_x, dtype)))}))
    tol = {"loss": [1e-9, 1e-10], "grads": [1e-8, 1e-10], "running": [1e-8, 1e-9], "eval_logits": [1e-7, 1e-8],
           "params": [1e-8, 1e-9] if optimizer == "SGD" else [1e-6, 1e-7]}
    if dtype == "float32":
        tol = {**dict.fromkeys(tol, [5e-5, 1e-5]), "eval_logits": [1e-4, 1e-4]}
    shown = [{name: tensor(v) if name.endswith("0") else v for name, v in layer.items()} for layer in layers]
    file.add(id, "train_network", dtype, ("core", "e2e"), layers=shown, optimizer=optimizer, hyper=hyper,
             loss="cross_entropy mean", accumulate=accumulate, steps=steps, note=note, tol=tol,
             expect={"final": final, "eval_x": tensor(eval_x), "eval_logits": tensor(logits, dtype)})


def networks_file():
    file = VectorFile("gen_networks", "whole networks", "10 training steps")
    relu, flatten, last = {"type": "relu"}, {"type": "flatten"}, {"type": "linear", "in": 2, "out": 2}
    first = {"type": "linear", "in": 1, "out": 2, "bias": False}
    norm = {"type": "batchnorm1d", "features": 2}
    network_case(file, "g_net_mlp_bn_adamw_f64", [first, {**norm, "momentum": None, "eps": 1e-3}, relu, last], "AdamW",
                 {"lr": 0.02, "weight_decay": 0.1}, (3, 1))
    network_case(file, "g_net_accumulate_f32", [first, norm, relu, last], "SGD",
                 {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}, (3, 1), accumulate=2,
                 note="two micro-batches a step: statistics move twice, one optimizer step")
    conv = {"type": "conv2d", "in": 1, "out": 2, "kernel": 2}
    network_case(file, "g_net_cnn_f64", [conv, relu, flatten, last], "Adam", {"lr": 0.05}, (2, 1, 2, 2))
    conv = {"type": "conv2d", "in": 1, "out": 2, "kernel": 3, "padding": 1, "bias": False}
    norm, pool = {"type": "batchnorm2d", "features": 2}, {"type": "maxpool2"}
    network_case(file, "g_net_cnn_bn_f32", [conv, norm, relu, pool, flatten, last], "SGD",
                 {"lr": 0.05, "momentum": 0.5}, (1, 1, 2, 2))
    return file
