"""`python -m mpc` is `craik`."""

import importlib

if __name__ == "__main__":  # imported by name, for the core does not know the agent
    raise SystemExit(importlib.import_module("mpc.agent.cli.main").main())
