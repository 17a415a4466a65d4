"""Memory: what the agent has experienced or been given as recordings."""
