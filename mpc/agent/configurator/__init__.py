"""The configurator: tasks, and what sets a planner up for them at run time."""
