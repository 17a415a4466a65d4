"""The parts of the architecture at work, each measured against what it has to beat; one command per table.

    python -m benchmarks.architecture latents          Crossing: futures that are not determined
    python -m benchmarks.architecture configurator     ten tasks in one process
    python -m benchmarks.architecture hierarchy        Maze: planning on two levels
    python -m benchmarks.architecture minds            actor, critic and memory

Figures go to benchmarks/results/architecture-*: .json, .csv, .md and .png.
"""
