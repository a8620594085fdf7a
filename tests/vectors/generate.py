#!/usr/bin/env python3
"""Writes the gen_*.json files beside it: see "Test vectors" in tests/README.md.

What is expected comes from generator/exact.py; PyTorch in float64, and Keras in float32, must agree. Every number is
drawn from a stream named after its case, so the same bytes come out whatever is added, on any machine."""
from generator.batch_norm import batch_norm_file, keras_file
from generator.contracts import contracts_file
from generator.folding import folding_file
from generator.hard import generated_file, hard_file
from generator.ops import ops_file
from generator.training import networks_file, optimizers_file

for make in (batch_norm_file, keras_file, hard_file, generated_file, contracts_file, ops_file, optimizers_file,
             networks_file, folding_file):
    make().write()
