"""Distances in latent space, which goal-reaching plans minimise."""
