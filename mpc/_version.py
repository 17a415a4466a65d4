"""The version of craik: read here when the package is built, and as `mpc.__version__`."""

__version__: str = "0.1.0"
