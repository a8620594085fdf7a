"""A training step of JAX, compiled with jit and donated buffers, timed; run by against_torch in a Python with jax."""
import peer
import jax
import jax.numpy as jnp
import numpy as np


def initial(workload, bn, random):
    """Per layer its parameters, and the running statistics of its batch norm."""
    parameters, statistics = [], []
    shapes = [(3, 3, c_in, c_out) for c_in, c_out, _ in peer.CONVOLUTIONS[workload]]
    shapes += list(zip(peer.SIZES[workload][:-1], peer.SIZES[workload][1:]))
    for i, shape in enumerate(shapes):
        out, last = shape[-1], i == len(shapes) - 1
        weight = random.normal(0, peer.deviation(workload, np.prod(shape[:-1])), shape)
        layer = {"weight": jnp.asarray(weight, jnp.float32)}
        if bn and not last:
            layer.update(gamma=jnp.ones(out), beta=jnp.zeros(out))
            statistics.append((jnp.zeros(out), jnp.ones(out)))
        else:
            layer["bias"] = jnp.zeros(out)
        parameters.append(layer)
    return parameters, statistics


def batch_norm(x, layer, running):
    axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    mean, var = x.mean(axes), x.var(axes)
    y = (x - mean) * (jax.lax.rsqrt(var + 1e-5) * layer["gamma"]) + layer["beta"]
    return y, (0.9 * running[0] + 0.1 * mean, 0.9 * running[1] + 0.1 * var * (count / (count - 1)))


def loss_of(parameters, statistics, x, labels, workload):
    activation = jax.nn.sigmoid if workload == "w1" else jax.nn.relu
    strides, updated = [c[2] for c in peer.CONVOLUTIONS[workload]], []
    for i, layer in enumerate(parameters):
        if i < len(strides):
            x = jax.lax.conv_general_dilated(x, layer["weight"], (strides[i], strides[i]), ((1, 1), (1, 1)),
                                             dimension_numbers=("NHWC", "HWIO", "NHWC"))
        else:
            x = x.reshape(x.shape[0], -1) @ layer["weight"]
        if "gamma" in layer:
            x, new = batch_norm(x, layer, statistics[i])
            updated.append(new)
        else:
            x = x + layer["bias"]
        if i < len(parameters) - 1:
            x = activation(x)
    return -jnp.take_along_axis(jax.nn.log_softmax(x), labels[:, None], 1).mean(), updated


def main():
    given = peer.options()
    workload, batch = given["workload"], peer.BATCH[given["workload"]]
    random = np.random.default_rng(1)
    images, labels = (np.frombuffer(raw, np.uint8) for raw in peer.read_mnist(given["data"]))
    shape = (-1, 28, 28, 1) if workload == "w3" else (-1, 784)
    images = images.reshape(shape)[:peer.IMAGES].astype(np.float32) / np.float32(255)
    labels = labels[:peer.IMAGES].astype(np.int32)
    parameters, statistics = initial(workload, given["bn"] == "on", random)
    velocity = jax.tree_util.tree_map(jnp.zeros_like, parameters)

    def update(parameters, velocity, statistics, x, labels):
        (loss, statistics), gradients = jax.value_and_grad(loss_of, has_aux=True)(
            parameters, statistics, x, labels, workload)
        velocity = jax.tree_util.tree_map(lambda v, g: 0.9 * v + g, velocity, gradients)
        parameters = jax.tree_util.tree_map(lambda p, v: p - peer.RATE[workload] * v, parameters, velocity)
        return (parameters, velocity, statistics), loss

    compiled = jax.jit(update, donate_argnums=(0, 1, 2))
    state = (parameters, velocity, statistics)

    def batches():
        while True:
            order = random.permutation(len(images))
            for i in range(len(images) // batch):
                yield order[i * batch:(i + 1) * batch]

    rows = batches()

    def step():
        nonlocal state
        index = next(rows)
        state, loss = compiled(*state, images[index], labels[index])
        jax.block_until_ready(state)
        return loss

    peer.measure(step, given, "jax " + jax.__version__)


main()
