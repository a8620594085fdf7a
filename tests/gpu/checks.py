"""Steps: the machine, the build, tests, compute-sanitizer."""
import json
import os
import re
import shutil

from steps import Failed, NotRun

SIGNS_OF_REFUSAL = ("not supported", "unable to", "failed to initialize", "cannot attach", "internal sanitizer error")


def environment(protocol, step):
    details = {"commit": os.environ.get("TANDEM_COMMIT", "unknown")}
    asked = {
        "commit": ["git", "-C", protocol.source, "describe", "--always", "--dirty", "--abbrev=12"],
        "gpu": ["nvidia-smi", "--format=csv,noheader", "--query-gpu=name,driver_version,clocks.sm,clocks.mem,"
                "clocks.max.sm,clocks.max.mem,power.limit,memory.total,memory.used,compute_cap"],
        "toolkit": ["nvcc", "--version"],
        "compiler": ["c++", "--version"],
        "cmake": ["cmake", "--version"],
    }
    for key, words in asked.items():
        if not shutil.which(words[0]):
            details.setdefault(key, "no %s here" % words[0])
            continue
        answer = step.start(words, check=False)
        if answer.returncode == 0:
            rows = answer.stdout.strip().splitlines()
            details[key] = next((row for row in rows if "release" in row), rows[0]) if key == "toolkit" else rows[0]
        elif key != "commit":
            details[key] = "%s: exit code %s" % (words[0], answer.returncode)
    details["cores"] = len(os.sched_getaffinity(0))
    if details["commit"] == "unknown":
        details["commit_unknown"] = "no .git here, and TANDEM_COMMIT is not set"
    if not protocol.emulated and (not shutil.which("nvidia-smi") or "exit code" in details["gpu"]):
        raise Failed("no GPU: " + details["gpu"], details)
    return "%s; %s" % (details["gpu"], details["commit"]), details


def build(protocol, step):
    """Only what the protocol runs, for this GPU."""
    if protocol.emulated:
        raise NotRun("emulated: uses what is in the build folder")
    asked = step.start(["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"], check=False).stdout
    number = re.match(r"(\d+)\.(\d+)\s", asked)
    words = ["cmake", "-S", protocol.source, "-B", protocol.build, "-DCMAKE_BUILD_TYPE=Release", "-DTANDEM_CUDA=ON",
             "-DTANDEM_BUILD_TESTS=ON", "-DTANDEM_BUILD_APPS=ON", "-DTANDEM_WERROR=OFF",
             "-DTANDEM_CUDA_ARCHITECTURES=" + ("".join(number.groups()) if number else "native")]
    if shutil.which("ninja"):
        words += ["-G", "Ninja"]
    if protocol.deps:
        # As RPATH, which is also searched for what libraries need. In LD_LIBRARY_PATH they would be every program's.
        words += ["-DCMAKE_PREFIX_PATH=%s/usr" % protocol.deps,
                  "-DCMAKE_EXE_LINKER_FLAGS=-Wl,--disable-new-dtags"]
    configured = step.start(words).stdout
    step.start(["cmake", "--build", protocol.build, "--parallel", len(os.sched_getaffinity(0)), "--target",
                "tandem_program", "tandem_tests", "tandem_vectors"])
    version = json.loads(step.start([protocol.program, "version", "--json"]).stdout)
    if not version["cuda"]:
        raise Failed("the program has no CUDA backend", {"version": version, "cmake": configured[-4000:]})
    cuda = next((row for row in configured.splitlines() if "CUDA" in row and "Tandem" in row), "no word of CUDA")
    return cuda.removeprefix("-- "), {"version": version, "cmake": configured[-4000:]}


def ops(protocol, step):
    tests = "reshape finds*,max_pool2d gives*,softmax and*" if protocol.emulated else "[ops]"
    out = step.start([protocol.tests, tests], {"TANDEM_TEST_DEVICE": "cuda"}).stdout
    if not re.search(r"All tests passed \([1-9]", out):
        raise Failed("no tests ran", {"output": out[-4000:]})
    return out.strip().splitlines()[-1], {"skipped": [row for row in out.splitlines() if "SKIPPED" in row]}


def labelled(protocol, step):
    if protocol.emulated:
        raise NotRun("emulated: ctest runs them on the emulated GPU")
    ran = step.start(["ctest", "--test-dir", protocol.build, "-L", "cuda", "-j", 4, "--output-on-failure"])
    out = ran.stdout
    if "No tests were found" in out + ran.stderr:
        raise NotRun("no test has the label cuda")
    return next(row for row in out.splitlines() if "tests passed" in row), {"output": out[-4000:]}


def vectors(protocol, step):
    paths = [os.path.join(protocol.source, "tests", "vectors"), protocol.more_vectors]
    out = step.start([protocol.vectors, *filter(None, paths), "--device", "cuda"]).stdout
    return out.strip().splitlines()[-1], {"output": out[-4000:]}


def sanitize(protocol, step, tool):
    """The first kernels of a run: two steps of each network and the beginning of the validation behind them."""
    if protocol.emulated:
        raise NotRun("emulated: there is no GPU to look at")
    if not shutil.which("compute-sanitizer"):
        raise NotRun("no compute-sanitizer here")
    train = [protocol.program, "train", "--device", "cuda", "--dataset", "digits", "--max-steps", 2, "-b", 8, "--eager",
             "-q", "--force"]
    runs = {w: train + ["--model", w, "--out", protocol.scratch(tool, w)] for w in ("w1", "w2", "w3")}
    runs["ops"] = [protocol.tests, "Every op equals its naive reference"]
    details, bad, refused = {}, [], ""
    for name, words in runs.items():
        count = [] if name == "ops" else ["--launch-count", 500]
        ran = step.start(["compute-sanitizer", "--tool", tool, "--error-exitcode", 99, *count, *words],
                         {"TANDEM_TEST_DEVICE": "cuda", "TANDEM_CUDA_POOL": "off"}, check=False)
        out = ran.stdout + ran.stderr
        summary = next((row for row in out.splitlines() if "SUMMARY" in row), "no summary")
        details[name] = summary.replace("=", "").strip()
        if ran.returncode == 0 and re.search(r"SUMMARY: 0 ", summary):
            continue
        sign = next((row for row in out.splitlines() if any(s in row.lower() for s in SIGNS_OF_REFUSAL)), "")
        if sign and ran.returncode != 99:
            details[name], refused = sign.strip("= "), sign.strip("= ")
            continue
        why = "no end" if ran.returncode is None else "exit code %d" % ran.returncode
        details[name + " output"] = out[-6000:]
        bad.append("%s: %s, %s" % (name, why, details[name]))
    if bad:
        raise Failed("; ".join(bad), details)
    if refused:
        raise NotRun("%s of %s clean, else refused: %s" % (
            ", ".join(n for n in runs if "SUMMARY: 0" in details[n]) or "none", ", ".join(runs), refused))
    return "; ".join("%s: %s" % item for item in details.items()), details
