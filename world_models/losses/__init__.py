"""Losses that prevent collapse, and regularizers of latent variables."""
