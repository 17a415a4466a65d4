"""Benchmarks: each module is one command, and its results are in `results/`."""
