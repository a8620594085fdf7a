"""Steps that train: equal bytes, small differences from the CPU, accuracy."""
import array
import concurrent.futures
import json
import math
import os
import struct

from steps import Failed, NotRun

# After one step from equal weights, of each tensor's norm. With --lr 100 what is left of the weights does not count:
# the tensors are the gradients, to rounding. A lower precision moves sums across relu's kink, which gradients show;
# there the usual learning rate is used, and networks with relu have a bound of their own: of 16 images, one that
# falls on the other side moved a bias's gradient by a tenth (w2 on the emulated GPU: 0.097 with tf32, 0.12 with bf16).
PRECISIONS = {"fp32": (1e-5, ["--lr", 100]), "tf32": (2e-3, []), "bf16": (2e-2, [])}
RELU_NETWORKS = ("w2", "w3")
RELU_BOUND = 0.3


def train(protocol, step, out, *flags):
    """The model file that a run writes."""
    step.start([protocol.program, "train", "--out", out, "--force", "-q", *flags])
    return os.path.join(out, "model.safetensors")


def contents(path):
    with open(path, "rb") as file:
        return file.read()


def tensors(path):
    """A safetensors file's, by name."""
    data = contents(path)
    begin = 8 + struct.unpack("<Q", data[:8])[0]
    codes = {"F32": "f", "F64": "d", "I64": "q", "I32": "i"}
    return {name: array.array(codes[t["dtype"]], data[begin + t["data_offsets"][0]:begin + t["data_offsets"][1]])
            for name, t in json.loads(data[8:begin]).items() if name != "__metadata__"}


def bitwise(protocol, step, network):
    """The same bytes from run to run, replayed or not, in a pair or alone; others from another seed."""
    if protocol.emulated and network == "w3":
        raise NotRun("emulated: convolutions take minutes")
    flags = ["--dataset", "digits", "--model", network, "--device", "cuda"]
    flags += ["--max-steps", 12, "-b", 16] if protocol.emulated else ["--max-steps", 300]

    def model(name, *more):
        return contents(train(protocol, step, protocol.scratch("bitwise", network, name), *flags, *more))

    first, plain = model("first"), model("plain", "--bn", "off")
    wrong = [name for name, more in {"again": [], "once_more": [], "eager": ["--eager"]}.items()
             if model(name, *more) != first]
    if model("seed_2", "--seed", 2) == first:
        wrong.append("seed 2 gives those of seed 1")
    pair = protocol.scratch("bitwise", network, "pair")
    step.start([protocol.program, "compare", "--seeds", 1, "--out", pair, "--force", "-q", *flags])
    for arm, alone in {"bn": first, "plain": plain}.items():
        if contents(os.path.join(pair, "seed1_" + arm, "model.safetensors")) != alone:
            wrong.append("the pair's " + arm)
    if wrong:
        raise Failed("not the bytes of the first run: " + ", ".join(wrong))
    return "three runs, eager, both arms of a pair: the same bytes", {"bytes": len(first)}


def differences(protocol, step, name, flags):
    """Of each tensor, CPU against GPU, of its norm; the largest first."""
    cpu, cuda = (tensors(train(protocol, step, protocol.scratch("cpu_cuda", name, device), "--dataset", "digits",
                               "--device", device, *more, *flags[device == "cuda"]))
                 for device, more in (("cpu", ["-j", 4]), ("cuda", [])))
    if cpu.keys() != cuda.keys():
        raise Failed("other tensors")
    found = {}
    for key, ours in cpu.items():
        off, norm = math.dist(ours, cuda[key]), math.hypot(*ours)
        found[key] = off / norm if norm else (math.inf if off else 0.0)
        if math.isnan(found[key]):
            found[key] = math.inf
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def judged(found, bound):
    key, most = next(iter(found.items()))
    remark = "largest difference %.2g of the norm (%s), bound %.0e" % (most, key, bound)
    if not most <= bound:
        raise Failed(remark, found)
    return remark, found


def one_step(protocol, step, network, precision):
    if protocol.emulated and network == "w3":
        raise NotRun("emulated: convolutions take minutes")
    flags = ["--model", network, "--max-steps", 1, "-b", 16]
    bound, more = PRECISIONS[precision]
    flags += more
    chosen = flags  # of the GPU
    if precision != "fp32":
        chosen = flags + ["--precision", precision]
        if network in RELU_NETWORKS:
            bound = RELU_BOUND
    return judged(differences(protocol, step, network + precision, (flags, chosen)), bound)


def float64(protocol, step, network):
    if protocol.emulated and network == "w3":
        raise NotRun("emulated: convolutions take minutes")
    flags = ["--model", network, "--dtype", "float64", "-b", 16, "--max-steps", 10 if protocol.emulated else 100]
    return judged(differences(protocol, step, network + "fp64", (flags, flags)), 1e-9)


def result(protocol, step, name, *flags):
    out = protocol.scratch("accuracy", name)
    train(protocol, step, out, *flags)
    with open(os.path.join(out, "RESULT.json")) as file:
        return json.load(file)


def mnist(protocol):
    if protocol.emulated:
        raise NotRun("emulated: takes hours")
    if not protocol.data:
        raise NotRun("no MNIST: neither --data nor TANDEM_DATA")
    return ["--dataset", "mnist", "--data", protocol.data]


def accuracy(protocol, step, network):
    """Three epochs on MNIST, on both at once."""
    flags = [*mnist(protocol), "--model", network, "--epochs", 3]
    devices = {"cpu": ["-j", 8], "cuda": []}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        runs = {device: pool.submit(result, protocol, step, network + device, *flags, "--device", device, *more)
                for device, more in devices.items()}
        found = {device: run.result() for device, run in runs.items()}
    percent = {device: 100 * r["test_accuracy"] for device, r in found.items()}
    remark = "test accuracy %.2f %% on the CPU, %.2f %% on the GPU" % (percent["cpu"], percent["cuda"])
    if abs(percent["cpu"] - percent["cuda"]) > 0.2 + 1e-9:
        raise Failed(remark + ": more than 0.2 points apart", found)
    return remark, found


def fast99(protocol, step):
    found = result(protocol, step, "fast99", *mnist(protocol), "--preset", "fast99", "--device", "cuda")
    remark = "%.2f %% after %.2f s of the process, %d steps" % (
        100 * found["test_accuracy"], found["seconds_since_start"], found["steps"])
    if not found["target_reached"] or found["test_accuracy"] < 0.99:
        raise Failed(remark + ": no 99 %", found)
    return remark, found
