#!/usr/bin/env python3
"""Times training steps of Tandem and PyTorch alternately, in one sitting, and prints their ratio with its spread.

  tests/peers/bench_peers.py --tandem build/release/tandem --data DIR \\
      [--python /usr/bin/python3] [--python VENV/bin/python] [--workloads w1,w2,w3] [--bn on,off,pair]
      [--rounds 5] [--seconds 3] [--compile] [--json FILE]

Each --python is an interpreter that can import torch (1.13 or 2.x); nothing is installed. DIR holds MNIST's four .gz
files; both programs train on them. In every round each configuration runs once, Tandem and the peers in turn:

  Tandem   1 and 2 threads; a pair: `tandem bench --bn pair` with 2 threads
  PyTorch  1 and 2 threads; w3 also channels-last; a pair: two processes of one thread, each pinned to a core, the
           slower one counted; with --compile also torch.compile

Per workload the best configuration of each program, by its median over the rounds, is compared: a ratio above 1 says
that Tandem is that many times as fast. The range is over rounds. OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE are unset, but
for a PyTorch that uses OpenBLAS: it is told the kernels that Tandem chose, since an OpenBLAS older than the CPU would
take those of 2004. PyTorch also gets the allocator and thread settings that serve it best. A run during which other
processes used more than 4 % of the machine is repeated up to three times, and marked if that did not help.
"""
import argparse
import gzip
import json
import os
import resource
import statistics
import subprocess
import sys
import time

BATCH = {"w1": 60, "w2": 128, "w3": 128}
RATE = {"w1": 0.1, "w2": 0.1, "w3": 0.05}


# ---- the peer: runs in a process of its own, under a Python that has torch -----------------------------------------

def read_idx(path):
    import torch
    with gzip.open(path, "rb") as file:
        raw = bytearray(file.read())
    header = 4 + 4 * raw[3]
    shape = [int.from_bytes(raw[i:i + 4], "big") for i in range(4, header, 4)]
    return torch.frombuffer(raw, dtype=torch.uint8, offset=header).reshape(shape)


def network(workload, bn):
    from torch import nn
    layers = []

    def add(layer, norm, activation):
        deviation = 0.1 if workload == "w1" else (2 / layer.weight[0].numel()) ** 0.5
        nn.init.normal_(layer.weight, 0, deviation)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        layers.extend([layer] + ([norm] if bn and norm else []) + ([activation()] if activation else []))

    if workload == "w3":
        for c_in, c_out, stride in ((1, 32, 1), (32, 32, 2), (32, 64, 1), (64, 64, 2)):
            add(nn.Conv2d(c_in, c_out, 3, stride, 1, bias=not bn), nn.BatchNorm2d(c_out), nn.ReLU)
        layers.append(nn.Flatten())
        sizes, activation = (3136, 128, 10), nn.ReLU
    else:
        sizes, activation = ((784, 100, 100, 100, 10), nn.Sigmoid) if workload == "w1" else (
            (784, 512, 256, 128, 10), nn.ReLU)
    for n_in, n_out in zip(sizes[:-2], sizes[1:-1]):
        add(nn.Linear(n_in, n_out, bias=not bn), nn.BatchNorm1d(n_out), activation)
    add(nn.Linear(sizes[-2], sizes[-1]), None, None)
    return nn.Sequential(*layers)


def peer(options):
    """Prints one JSON line: milliseconds a step, the losses of the first and last."""
    if options["core"] is not None:
        os.sched_setaffinity(0, {options["core"]})
    import torch
    torch.set_num_threads(options["threads"])
    torch.manual_seed(1)
    workload, batch = options["workload"], BATCH[options["workload"]]
    images = read_idx(options["data"] + "/train-images-idx3-ubyte.gz")[:55000].float().div_(255)
    images = images.reshape((-1, 1, 28, 28) if workload == "w3" else (-1, 784))
    labels = read_idx(options["data"] + "/train-labels-idx1-ubyte.gz")[:55000].long()
    net = network(workload, options["bn"] == "on")
    layout = torch.channels_last if options["layout"] == "nhwc" else torch.contiguous_format
    if workload == "w3":
        net = net.to(memory_format=layout)
    forward = torch.compile(net) if options["compile"] else net
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE[workload], momentum=0.9, foreach=True)

    def batches():
        while True:
            order = torch.randperm(len(images))
            for i in range(len(images) // batch):
                yield order[i * batch:(i + 1) * batch]

    def step(rows):
        x = images[rows]
        if workload == "w3":
            x = x.contiguous(memory_format=layout)
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(forward(x), labels[rows])
        loss.backward()
        optimizer.step()
        return loss

    rows = batches()
    first = step(next(rows)).item()
    for _ in range(20):
        step(next(rows))
    while time.time() < options["start_at"]:  # the other process of a pair
        step(next(rows))
    times, end = [], time.perf_counter() + options["seconds"]
    while time.perf_counter() < end or len(times) < 10:
        before = time.perf_counter()
        loss = step(next(rows))
        times.append(time.perf_counter() - before)
    print(json.dumps({"ms": 1e3 * statistics.median(times), "loss_first": first, "loss_last": loss.item(),
                      "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "torch": torch.__version__}))


# ---- the driver -----------------------------------------------------------------------------------------------------

def environment(threads, torch, openblas_core=None):
    env = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    if torch:
        env.update(OPENBLAS_CORETYPE=openblas_core, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads), OPENBLAS_NUM_THREADS=str(threads),
                   MALLOC_MMAP_THRESHOLD_="4000000000", MALLOC_TRIM_THRESHOLD_="8000000000",
                   MALLOC_TOP_PAD_="268435456")
        if threads > 1:
            env["OMP_WAIT_POLICY"] = "passive"
    return env


def start(command, env):
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)


def finish(process):
    out = process.communicate()[0]
    if process.returncode:
        sys.exit("%s: exit %d" % (" ".join(process.args), process.returncode))
    return json.loads(out.splitlines()[-1])


def run_tandem(args, config):
    row = finish(start([args.tandem, "bench", "--workload", config["workload"], "--bn", config["bn"], "--threads",
                        str(config["threads"]), "--seconds", str(args.seconds), "--dataset", "mnist", "--data", args.data,
                        "--json", "-q"], environment(config["threads"], torch=False)))
    return {"ms": row["ms_per_step"], "rss_mb": row["peak_rss_mb"]}


def run_torch(args, config):
    def options(**changes):
        return json.dumps(dict(config, data=args.data, seconds=args.seconds, start_at=0, core=None, **changes))

    def launch(text):
        return start([config["python"], os.path.abspath(__file__), "--peer", text],
                     environment(config["threads"], torch=True, openblas_core=args.openblas_core))

    if config["bn"] != "pair":
        return finish(launch(options()))
    arms = [json.loads(options()) for _ in range(2)]
    for core, (arm, bn) in enumerate(zip(arms, ("on", "off"))):
        arm.update(bn=bn, core=core, start_at=time.time() + (40 if config["compile"] else 10))
    rows = [finish(p) for p in [launch(json.dumps(arm)) for arm in arms]]
    return {"ms": max(r["ms"] for r in rows), "rss_mb": sum(r["rss_mb"] for r in rows), "torch": rows[0]["torch"]}


def cpu_seconds():
    """Of the whole machine since boot: busy, all."""
    ticks = [int(v) for v in open("/proc/stat").readline().split()[1:9]]
    hertz = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - ticks[3] - ticks[4]) / hertz, sum(ticks) / hertz


def quiet_run(run, args, config):
    """The run's row with `load`: the share of the machine that others used meanwhile."""
    for _ in range(3):
        busy, total = cpu_seconds()
        own = resource.getrusage(resource.RUSAGE_CHILDREN)
        row = run(args, config)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - own.ru_utime - own.ru_stime
        busy_after, total_after = cpu_seconds()
        row["load"] = max(0.0, (busy_after - busy - used) / max(1e-9, total_after - total))
        if row["load"] <= 0.04:
            break
    return row


def configurations(args, workload, bn):
    """Pairs of a function and what it runs."""
    counts = [2] if bn == "pair" else [1, 2]
    for threads in counts:
        yield run_tandem, {"program": "tandem", "workload": workload, "bn": bn, "threads": threads}
    for python in args.python:
        for threads in [1] if bn == "pair" else counts:
            for layout in ["nchw", "nhwc"] if workload == "w3" else ["nchw"]:
                for compiled in [False, True] if args.compile else [False]:
                    yield run_torch, {"program": "torch", "python": python, "workload": workload, "bn": bn,
                                      "threads": threads, "layout": layout, "compile": compiled}


def name(config, row):
    parts = [config["program"] + (" " + row["torch"].split("+")[0] if "torch" in row else "")]
    parts.append("2 processes" if config["program"] == "torch" and config["bn"] == "pair" else "%dt" % config["threads"])
    if config["workload"] == "w3" and config["program"] == "torch":
        parts.append(config["layout"])
    return " ".join(parts + (["compiled"] if config.get("compile") else []))


def compare(args, workload, bn):
    """Runs every configuration in every round; prints each and the ratio of the best."""
    configs = list(configurations(args, workload, bn))
    rows = [[quiet_run(run, args, config) for run, config in configs] for _ in range(args.rounds)]
    columns = [[r[i] for r in rows] for i in range(len(configs))]
    for (_, config), column in zip(configs, columns):
        ms = [r["ms"] for r in column]
        load = max(r["load"] for r in column)
        print("%-3s %-5s %-28s %9.3f ms  [%.3f, %.3f]  %5.0f MiB%s" % (
            workload, bn, name(config, column[0]), statistics.median(ms), min(ms), max(ms),
            max(r["rss_mb"] for r in column), "  others used %.0f %%" % (100 * load) if load > 0.04 else ""), flush=True)

    def best(keep):
        kept = [column for (_, config), column in zip(configs, columns) if keep(config)]
        return min(kept, key=lambda column: statistics.median(r["ms"] for r in column))

    ours, ratios = best(lambda c: c["program"] == "tandem"), {}
    for python in args.python:
        theirs = best(lambda c: c.get("python") == python)
        ratio = [t["ms"] / o["ms"] for t, o in zip(theirs, ours)]
        ratios["torch " + theirs[0]["torch"]] = ratio
        busy = any(row["load"] > 0.04 for row in theirs + ours)
        print("%-3s %-5s Tandem's best against torch %s's best: %.2fx  [%.2f, %.2f] over %d rounds%s" % (
            workload, bn, theirs[0]["torch"].split("+")[0], statistics.median(ratio), min(ratio), max(ratio), len(ratio),
            "; the machine was busy: supports no claim" if busy else ""), flush=True)
    return {"workload": workload, "bn": bn, "ratios": ratios, "runs": [
        dict(config, ms=[r["ms"] for r in column], load=[r["load"] for r in column])
        for (_, config), column in zip(configs, columns)]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tandem", default="build/release/tandem")
    parser.add_argument("--data", default=os.environ.get("TANDEM_DATA", ""))
    parser.add_argument("--python", action="append")
    parser.add_argument("--workloads", default="w1,w2,w3")
    parser.add_argument("--bn", default="on,off,pair")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--json")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        return peer(json.loads(args.peer))
    args.python = args.python or ["/usr/bin/python3"]
    if not os.path.exists(args.data + "/train-images-idx3-ubyte.gz"):
        sys.exit("--data: expected a folder with train-images-idx3-ubyte.gz, got '%s'" % args.data)
    # "BLAS  OpenBLAS 0.3.21 SkylakeX"
    version = subprocess.run([args.tandem, "version"], env=environment(1, torch=False), capture_output=True, text=True,
                             check=True).stdout
    args.openblas_core = next(line for line in version.splitlines() if line.startswith("BLAS")).split()[-1]
    results = [compare(args, workload, bn) for workload in args.workloads.split(",") for bn in args.bn.split(",")]
    if args.json:
        with open(args.json, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
