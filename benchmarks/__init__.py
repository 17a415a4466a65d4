"""Benchmarks: each module is one command, and its results are in `results/`."""

import os

os.environ.setdefault("CRAIK_CACHE", "off")  # before mpc is imported: times of compiling are not those of reading files
