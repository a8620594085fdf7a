"""What the peers of against_torch share: the reference networks, the data, the clock. Standard library alone."""
import gzip
import json
import os
import resource
import statistics
import sys
import time

BATCH = {"w1": 60, "w2": 128, "w3": 128}
RATE = {"w1": 0.1, "w2": 0.1, "w3": 0.05}
CONVOLUTIONS = {"w1": (), "w2": (), "w3": ((1, 32, 1), (32, 32, 2), (32, 64, 1), (64, 64, 2))}  # in, out, stride
SIZES = {"w1": (784, 100, 100, 100, 10), "w2": (784, 512, 256, 128, 10), "w3": (3136, 128, 10)}
IMAGES = 55000  # of training; the other 5,000 validate


def options():
    """Those of the driver; pins the process to the core that they name."""
    given = json.loads(sys.argv[1])
    if given["core"] is not None:
        os.sched_setaffinity(0, {given["core"]})
    return given


def deviation(workload, fan_in):
    return 0.1 if workload == "w1" else (2 / fan_in) ** 0.5


def read_idx(path):
    """Bytes after the header, of MNIST's images or labels."""
    with gzip.open(path, "rb") as file:
        raw = bytearray(file.read())
    return raw[4 + 4 * raw[3]:]


def read_mnist(folder):
    return read_idx(folder + "/train-images-idx3-ubyte.gz"), read_idx(folder + "/train-labels-idx1-ubyte.gz")


def seconds_since_start():
    """Of this process; up to a tick (10 ms) too much, as the kernel rounds the start down."""
    ticks = open("/proc/self/stat").read().rpartition(")")[2].split()[19]
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(ticks) / os.sysconf("SC_CLK_TCK")


def measure(step, given, version):
    """Runs step(), which returns the loss once all is computed, and prints one JSON line."""
    first = float(step())
    first_step = seconds_since_start()
    for _ in range(20):
        step()
    while time.time() < given["start_at"]:  # the other process of a pair
        step()
    times, end = [], time.perf_counter() + given["seconds"]
    while time.perf_counter() < end or len(times) < 10:
        before = time.perf_counter()
        loss = step()
        times.append(time.perf_counter() - before)
    print(json.dumps({"ms": 1e3 * statistics.median(times), "loss_first": first, "loss_last": float(loss),
                      "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                      "first_step_s": first_step, "version": version}))
