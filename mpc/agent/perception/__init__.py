"""Perception: environments' spaces, observation history and images as the model's input."""
