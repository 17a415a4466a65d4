"""A linear probe: reads observations off latents, for figures."""

from typing import Any, NamedTuple

import numpy as np


class Probe(NamedTuple):
    """A linear map from latents back to observations, for eyes only: nothing is planned or learnt with it."""

    matrix: np.ndarray
    """`[D+1, O]`, the constant last."""

    def __call__(self, latents: Any) -> np.ndarray:
        """Latents `[..., D]` to observations `[..., O]`."""
        latents = np.asarray(latents, np.float64)
        return latents @ self.matrix[:-1] + self.matrix[-1]


def probe(latents: np.ndarray, observations: np.ndarray, ridge: float = 1e-6) -> Probe:
    """Fit a probe of latents `[N, D]` by ridge regression on observations `[N, O]`."""
    inputs = np.concatenate([latents, np.ones((len(latents), 1))], axis=1).astype(np.float64)
    gram = inputs.T @ inputs / len(inputs) + ridge * np.eye(inputs.shape[1])
    return Probe(np.linalg.solve(gram, inputs.T @ observations / len(inputs)))
