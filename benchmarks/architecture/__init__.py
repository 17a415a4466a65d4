"""Benchmarks of the architecture's modules, each compared with what it replaces; one command per table.

    python -m benchmarks.architecture latents          Crossing: latent variables for unpredictable futures
    python -m benchmarks.architecture configurator     ten tasks in one process
    python -m benchmarks.architecture hierarchy        Maze: planning on two levels
    python -m benchmarks.architecture actor-critic     actor, critic and observation history

Results are written to benchmarks/results/architecture-*: .json, .csv, .md and .png.
"""
