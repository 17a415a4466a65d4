"""Planners: one algorithm, one file, one signature."""
