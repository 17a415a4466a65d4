"""What this engine can do, measured: each module is one command, and what it measured lies in `results/`."""
