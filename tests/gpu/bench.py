"""The step that measures: Tandem and a peer by turns, and Tandem once more for what repeats."""
import itertools
import json
import sys
import time

from steps import Failed, NotRun

DEFAULT_BATCH = {"w1": 60, "w2": 128, "w3": 128}
PRECISIONS = ("fp32", "tf32", "bf16")


def json_lines(text):
    rows = []
    for row in text.splitlines():
        try:
            rows.append(json.loads(row))
        except ValueError:  # a warning, or the line that was cut off
            pass
    return [row for row in rows if isinstance(row, dict)]


def tandem(protocol, step, part, workload, batches, seconds, arms=("on", "pair", "off"), precisions=PRECISIONS):
    """A row a configuration, those that matter least last: they are left out when the time is up."""
    rows, end = [], time.monotonic() + min(seconds, step.left() - 5)
    for arm, batch, precision in itertools.product(arms, batches, precisions):
        row = {"part": part, "workload": workload, "bn": arm, "batch": batch, "precision": precision}
        if time.monotonic() > end:
            rows.append(dict(row, left_out="the time is up"))
            continue
        ran = step.start([protocol.program, "bench", "--workload", workload, "--bn", arm, "-b", batch,
                          "--precision", precision, "--device", "cuda", "--dataset", "digits", "--seconds", 0.3,
                          "--json"], check=False)
        found = json_lines(ran.stdout)
        if ran.returncode == 0 and found:
            rows.append(dict(found[0], **row))
        else:
            rows.append(dict(row, error="exit code %s: %s" % (ran.returncode, ran.stderr.strip()[-300:])))
    return rows


def peer(protocol, step, workload, batch, seconds):
    """Its rows as they are. It looks at its budget only between configurations; what lies beyond is cut off."""
    words = [sys.executable, protocol.peer, "--workloads", workload.upper(), "--batches", "%d,4096" % batch,
             "--arms", "bn,nobn", "--pair", "--modes", "cudagraph,compile_graph", "--layouts", "nhwc",
             "--compile-batches", batch, "--budget-s", "%.0f" % seconds]
    ran = step.start(words, seconds=1.5 * seconds, check=False)
    rows = [dict(row, part="peer") for row in json_lines(ran.stdout)]
    if ran.returncode != 0:
        end = "its time" if ran.returncode is None else "exit code %d" % ran.returncode
        rows.append({"part": "peer", "workload": workload, "left_out": "ended by %s: %s" % (end, ran.stderr[-300:])})
    return rows


def bench(protocol, step):
    if protocol.emulated:
        raise NotRun("emulated: there is nothing to measure")
    rows, share = [], step.left() / 18
    for workload, batch in DEFAULT_BATCH.items():
        rows += tandem(protocol, step, "tandem", workload, (batch, 4096), 3 * share if protocol.peer else 5 * share)
        if protocol.peer:
            rows += peer(protocol, step, workload, batch, 1.6 * share)
    for workload, batch in DEFAULT_BATCH.items():
        rows += tandem(protocol, step, "again", workload, (batch,), share, ("on",))
    measured = [row for row in rows if row["part"] != "peer" and "ms_per_step" in row]
    errors = [row["error"] for row in rows if row["part"] != "peer" and "error" in row]
    remark = "Tandem: %d measured, %d left out, %d failed" % (
        len(measured), sum("left_out" in row for row in rows if row["part"] != "peer"), len(errors))
    remark += "; peer: %d measured" % sum("us_per_step" in row for row in rows) if protocol.peer else "; no --peer"
    details = {"rows": rows, "again": again(measured)}
    if errors or not measured:
        raise Failed("; ".join([remark] + errors[:1]), details)
    return remark, details


def again(rows):
    """What the second measurement of a configuration is of the first."""
    def key(row):
        return "%s %d %s" % (row["workload"], row["batch"], row["precision"])

    first = {key(row): row["ms_per_step"] for row in rows if row["part"] == "tandem" and row["bn"] == "on"}
    return {key(row): round(row["ms_per_step"] / first[key(row)], 3)
            for row in rows if row["part"] == "again" and key(row) in first}


def table(details):
    """Microseconds a step, in 80 columns."""
    found = {}
    for row in details["rows"]:
        if row["part"] == "tandem" and "ms_per_step" in row:
            arm, who, us = row["bn"], "tandem", 1e3 * row["ms_per_step"]
        elif row["part"] == "peer" and "us_per_step" in row:
            arm, who, us = {"bn": "on", "nobn": "off"}.get(row["arms"], "pair"), row["mode"], row["us_per_step"]
        else:
            continue
        found.setdefault((row["workload"].lower(), row["batch"], arm, who), {})[row["precision"]] = us
    lines = ["us a step  batch  bn    by            " + "".join("%11s" % p for p in PRECISIONS)]
    for key, us in sorted(found.items()):
        lines.append("%-9s %6d  %-5s %-14s" % key +
                     "".join("%11.1f" % us[p] if p in us else "%11s" % "-" for p in PRECISIONS))
    lines += ["%-38s measured again: %.3f of it" % item for item in details["again"].items()]
    return "\n".join(lines)
