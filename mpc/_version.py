"""The version of craik, as `mpc.__version__` has it; the build reads it by a pattern that knows no annotation."""

__version__ = "0.1.0"
