"""Files that are whole or as they were before, and checkpoints."""
