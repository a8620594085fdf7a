"""What `tandem train` writes, read by the tools it is written for: TensorBoard, Python's safetensors, csv and json.

usage: read_run.py PROGRAM
"""
import csv
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def train(program, out):
    command = [program, "train", "--dataset", "digits", "--model", "w2", "--max-steps", "40", "--eval-every", "20",
               "--seed", "3", "--out", out, "--json"]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(result.stdout)


def check_events(out, metrics):
    """TensorBoard sees every record of metrics.jsonl, in order."""
    events = EventAccumulator(out, size_guidance={"scalars": 0})
    events.Reload()
    for split in ("train", "validation", "test"):
        rows = [m for m in metrics if m["split"] == split]
        for what in ("loss", "accuracy"):
            scalars = events.Scalars(f"{what}/{split}")
            assert [s.step for s in scalars] == [m["step"] for m in rows], (what, split)
            assert np.array_equal([s.value for s in scalars], np.float32([m[what] for m in rows])), (what, split)
    assert [s.step for s in events.Scalars("lr")] == [10, 20, 30, 40]


def check_csv(out, metrics):
    with open(os.path.join(out, "metrics.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(metrics)
    for row, m in zip(rows, metrics):
        assert row.keys() == m.keys() and row["split"] == m["split"]
        assert all(float(row[k]) == m[k] for k in m if k != "split")


def check_model(out, program):
    """The tensors have PyTorch's names and layouts, and a forward pass in NumPy answers as the program does."""
    with safe_open(os.path.join(out, "model.safetensors"), "np") as file:
        assert file.metadata()["dataset"] == "digits" and file.metadata()["input_shape"] == "[28, 28, 1]"
        state = {name: file.get_tensor(name) for name in file.keys()}
    assert state["dense1.weight"].shape == (512, 784) and "dense1.bias" not in state
    assert state["bn3.num_batches_tracked"] == 40

    images = np.random.default_rng(0).integers(0, 256, (64, 28, 28), dtype=np.uint8)
    path = os.path.join(out, "images.idx")
    with open(path, "wb") as file:
        file.write(bytes([0, 0, 8, 3]) + np.array(images.shape, ">u4").tobytes() + images.tobytes())
    answer = subprocess.run([program, "predict", out, path, "--json"], check=True, capture_output=True, text=True)
    got = np.array([p["probabilities"] for p in json.loads(answer.stdout)["predictions"]])

    x = images.reshape(64, 784) / 255.0
    for i in (1, 2, 3):
        x = x @ state[f"dense{i}.weight"].T.astype(np.float64)
        x = (x - state[f"bn{i}.running_mean"]) / np.sqrt(state[f"bn{i}.running_var"].astype(np.float64) + 1e-5)
        x = np.maximum(x * state[f"bn{i}.weight"] + state[f"bn{i}.bias"], 0)
    logits = x @ state["dense4.weight"].T.astype(np.float64) + state["dense4.bias"]
    expected = np.exp(logits - logits.max(1, keepdims=True))
    expected /= expected.sum(1, keepdims=True)
    assert np.abs(got - expected).max() < 1e-4, np.abs(got - expected).max()


def main():
    program = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "run")
        result = train(program, out)
        with open(os.path.join(out, "metrics.jsonl")) as file:
            metrics = [json.loads(line) for line in file]
        assert result["steps"] == 40 and metrics[-1]["accuracy"] == result["test_accuracy"]
        check_events(out, metrics)
        check_csv(out, metrics)
        check_model(out, program)
    print("read_run: TensorBoard, safetensors, csv and json read the run")


if __name__ == "__main__":
    main()
