"""Losses: against collapse, and on the information in latent variables."""
