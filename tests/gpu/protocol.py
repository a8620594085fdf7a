#!/usr/bin/env python3
"""Proof with a GPU, one command: builds Tandem for the GPU of this machine, tests, compares and measures it.

  tests/run --gpu [--deps DIR] [--vectors DIR] [--peer SCRIPT] [--data DIR] [--out DIR]

A step that fails or cannot be done does not stop the others. Prints a line a step and writes OUT/gpu.json; exits with 1
if one failed. Python's standard library alone; README.md of this folder says more.
"""
import argparse
import concurrent.futures
import functools
import json
import os
import sys
import tempfile
import time

import bench
import checks
import training
from steps import Step, line

NETWORKS = ("w1", "w2", "w3")
SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def folder(path):
    if not os.path.isdir(path):
        raise argparse.ArgumentTypeError("expected a folder, got '%s'" % path)
    return os.path.abspath(path)


class Protocol:
    """What the steps share."""

    def __init__(self, options, scratch_folder):
        self.source, self.scratch_folder = SOURCE, scratch_folder
        self.deps, self.more_vectors, self.peer, self.data = options.deps, options.vectors, options.peer, options.data
        self.emulated = options.emulated is not None
        self.build = options.emulated or os.path.join(SOURCE, "build", "gpu")
        tests = os.path.join(self.build, "tests")
        if self.emulated:
            self.program, self.tests, self.vectors = (os.path.join(tests, "tandem_emulated" + part)
                                                      for part in ("", "_tests", "_vectors"))
        else:
            self.program = os.path.join(self.build, "tandem")
            self.tests, self.vectors = os.path.join(tests, "tandem_tests"), os.path.join(tests, "tandem_vectors")

    def scratch(self, *names):
        path = os.path.join(self.scratch_folder, *names)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def groups(self):
        """The steps; those of a group run at once."""
        def step(name, seconds, work, *arguments):
            return Step(name, seconds, lambda step: work(self, step, *arguments))

        yield [step("environment", 15, checks.environment)]
        yield [step("build", 210, checks.build)]
        yield [step("op table", 60, checks.ops), step("tests labelled cuda", 60, checks.labelled),
               step("vectors", 60, checks.vectors)]
        yield [step(tool, 60, checks.sanitize, tool) for tool in ("memcheck", "racecheck", "initcheck", "synccheck")]
        yield [step("bitwise " + n, 60, training.bitwise, n) for n in NETWORKS]
        yield [step("cpu-cuda %s %s" % (n, p), 40, training.one_step, n, p)
               for n in NETWORKS for p in training.PRECISIONS]
        yield [step("cpu-cuda %s float64" % n, 40, training.float64, n) for n in NETWORKS]
        yield [step("accuracy " + n, 60, training.accuracy, n) for n in ("w2", "w3")]
        yield [step("fast99", 30, training.fast99)]
        yield [step("bench", 180, bench.bench)]


def main():
    parser = argparse.ArgumentParser(prog="tests/run --gpu", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deps", type=folder, metavar="DIR", help="unpacked Debian packages, by tests/gpu/make_deps")
    parser.add_argument("--vectors", type=folder, metavar="DIR", help="more test vectors than tests/vectors")
    parser.add_argument("--peer", metavar="SCRIPT", help="measured by turns with Tandem: README.md")
    parser.add_argument("--data", type=folder, metavar="DIR", default=os.environ.get("TANDEM_DATA") or None,
                        help="MNIST's folder; else $TANDEM_DATA")
    parser.add_argument("--out", metavar="DIR", default=os.path.join(SOURCE, "build", "gpu_proof"),
                        help="where gpu.json goes (build/gpu_proof)")
    parser.add_argument("--seconds", type=float, default=525, help="for all of it (%(default)s)")
    parser.add_argument("--emulated", type=folder, metavar="BUILD",
                        help="no GPU, little work: the emulated programs of a build folder, to test this script")
    options = parser.parse_args()

    deadline = time.monotonic() + options.seconds
    os.environ["PATH"] += os.pathsep + "/usr/local/cuda/bin"
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):  # they would choose other kernels
        os.environ.pop(name, None)
    records, failed_build = [], False
    os.makedirs(options.out, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, concurrent.futures.ThreadPoolExecutor(4) as pool:
        protocol = Protocol(options, scratch)
        for group in protocol.groups():
            if failed_build:
                done = [{"name": s.name, "status": "not run", "remark": "there is no build", "seconds": 0.0,
                         "details": None} for s in group]
            else:
                done = pool.map(functools.partial(Step.run, deadline=deadline), group)
            for record in done:
                print(line(record), flush=True)
                records.append(record)
                failed_build |= record["name"] == "build" and record["status"] == "failed"
            with open(os.path.join(options.out, "gpu.json"), "w") as file:  # as far as it got
                json.dump({"emulated": protocol.emulated, "steps": records}, file, indent=1)

    if records[-1]["details"]:
        print("\n" + bench.table(records[-1]["details"]))
    counts = {status: sum(r["status"] == status for r in records) for status in ("passed", "failed", "not run")}
    print("\n" + ", ".join("%d %s" % (n, status) for status, n in counts.items()) +
          (" (emulated: nothing here ran on a GPU)" if protocol.emulated else ""))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
