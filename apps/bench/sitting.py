"""What against_torch and time_to_target share: options, the environment, and looking at what others do to the machine.

Standard library alone.
"""
import argparse
import os
import resource
import shutil

FOLDER = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.join(os.path.dirname(os.path.dirname(FOLDER)), "build")
QUIET = 0.04  # the share of the machine that others may use
BUSY = "busy: other processes used more than %.0f %% of the machine meanwhile; supports no claim." % (100 * QUIET)


def program(path):
    if not shutil.which(path):
        raise argparse.ArgumentTypeError("expected a program, got '%s'" % path)
    return path


def mnist(folder):
    if not os.path.exists(folder + "/train-images-idx3-ubyte.gz"):
        raise argparse.ArgumentTypeError("expected a folder with train-images-idx3-ubyte.gz, got '%s'" % folder)
    return folder


def count(text):
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError("expected a count of at least 1, got '%s'" % text)
    return int(text)


def parser(description):
    """With the options of both drivers."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--tandem", type=program, default=os.path.join(BUILD, "release", "tandem"),
                         help="the program (%(default)s)")
    options.add_argument("--data", type=mnist, default=os.environ.get("TANDEM_DATA", ""),
                         help="MNIST's folder; else $TANDEM_DATA")
    options.add_argument("--tries", type=count, default=3, help="of a run that others disturb (%(default)s)")
    options.add_argument("--json", help="all measurements, as a file")
    return options


def environment():
    return {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}


def cpu_seconds():
    """Of the whole machine since boot: busy, all."""
    with open("/proc/stat") as file:
        ticks = [int(v) for v in file.readline().split()[1:9]]
    hertz = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - ticks[3] - ticks[4]) / hertz, sum(ticks) / hertz


def own_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def quiet_run(run, tries):
    """What run() returns, with its processes' `cpu_seconds` and `load`, the share of the machine that others used."""
    for _ in range(tries):
        (busy, total), own = cpu_seconds(), own_seconds()
        row = run()
        row["cpu_seconds"] = own_seconds() - own
        busy_after, total_after = cpu_seconds()
        row["load"] = max(0.0, (busy_after - busy - row["cpu_seconds"]) / max(1e-9, total_after - total))
        if row["load"] <= QUIET:
            break
    return row


def disturbed(rows):
    return any(row["load"] > QUIET for row in rows)
