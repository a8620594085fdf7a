"""A training step of PyTorch, timed; run by against_torch under a Python that has torch."""
import peer
import torch
from torch import nn


def network(workload, bn):
    layers = []

    def add(layer, norm=None, activation=None):
        nn.init.normal_(layer.weight, 0, peer.deviation(workload, layer.weight[0].numel()))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        layers.extend([layer] + ([norm] if bn and norm else []) + ([activation()] if activation else []))

    for c_in, c_out, stride in peer.CONVOLUTIONS[workload]:
        add(nn.Conv2d(c_in, c_out, 3, stride, 1, bias=not bn), nn.BatchNorm2d(c_out), nn.ReLU)
    if layers:
        layers.append(nn.Flatten())
    sizes = peer.SIZES[workload]
    for n_in, n_out in zip(sizes[:-2], sizes[1:-1]):
        add(nn.Linear(n_in, n_out, bias=not bn), nn.BatchNorm1d(n_out), nn.Sigmoid if workload == "w1" else nn.ReLU)
    add(nn.Linear(sizes[-2], sizes[-1]))
    return nn.Sequential(*layers)


def main():
    given = peer.options()
    torch.set_num_threads(given["threads"])
    torch.manual_seed(1)
    workload, batch = given["workload"], peer.BATCH[given["workload"]]
    shape = (-1, 1, 28, 28) if workload == "w3" else (-1, 784)
    images, labels = (torch.frombuffer(raw, dtype=torch.uint8) for raw in peer.read_mnist(given["data"]))
    images = images.reshape(shape)[:peer.IMAGES].float().div_(255)
    labels = labels[:peer.IMAGES].long()
    net = network(workload, given["bn"] == "on")
    if given["fp64"]:
        net, images = net.double(), images.double()
    layout = torch.channels_last if given["layout"] == "nhwc" else torch.contiguous_format
    if workload == "w3":
        net = net.to(memory_format=layout)
    forward = torch.compile(net) if given["compile"] else net
    optimizer = torch.optim.SGD(net.parameters(), lr=peer.RATE[workload], momentum=0.9, foreach=True)

    def batches():
        while True:
            order = torch.randperm(len(images))
            for i in range(len(images) // batch):
                yield order[i * batch:(i + 1) * batch]

    rows = batches()

    def step():
        index = next(rows)
        x = images[index]
        if workload == "w3":
            x = x.contiguous(memory_format=layout)
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(forward(x), labels[index])
        loss.backward()
        optimizer.step()
        return loss.detach()

    peer.measure(step, given, "torch " + torch.__version__.split("+")[0])


main()
