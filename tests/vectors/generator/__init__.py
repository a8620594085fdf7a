"""What generate.py writes: the cases of each file, and exact.py, the arithmetic behind what they expect."""
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("KERAS_BACKEND", "torch")
