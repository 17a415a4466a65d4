"""Figures and films of imagined and real futures."""
