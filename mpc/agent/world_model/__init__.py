"""The agent's world models: built from settings, corrected by recent prediction errors, or MuJoCo's equations."""
