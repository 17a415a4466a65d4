"""Distances in latent space; goal-reaching planners minimise them."""
