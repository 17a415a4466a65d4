"""Multi-layer perceptrons."""

from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

Sizes = tuple[int, ...]


class MLP(nnx.Module):
    """Multi-layer perceptron, or an ensemble of them evaluated by batched matrix products.

    Each layer computes `x ← silu(x W + b)`; the last layer is linear. With `members`, weights have a leading axis M, and
    inputs and outputs are `[M, B, size]`. Initial weights are truncated normal, of variance 1 / inputs (LeCun et al. 1998).

    Args:
        sizes: Units of every layer, inputs first and outputs last; at least two, or a ValueError is raised.
        members: Number M of independently initialised networks, or None for a single network without the axis.
        last_scale: Factor on the last layer's initial weights; with 0 the initial output is 0.
    """

    def __init__(self, sizes: Sizes, *, members: int | None = None, last_scale: float = 1.0, rngs: nnx.Rngs) -> None:
        if len(sizes) < 2:
            raise ValueError(f"an MLP needs at least the sizes of its inputs and outputs; got {sizes}")
        leading = () if members is None else (members,)
        layers = list(pairwise(sizes))
        # one draw for all layers, because compiling a random generator for each layer takes seconds
        drawn = jax.random.truncated_normal(rngs.params(), -2.0, 2.0, (*leading, sum(i * o for i, o in layers)))
        kernels, biases, used = [], [], 0
        for index, (inputs, outputs) in enumerate(layers):
            scale = inputs**-0.5 * (last_scale if index == len(layers) - 1 else 1.0)
            kernel = drawn[..., used : used + inputs * outputs].reshape(*leading, inputs, outputs)
            used += inputs * outputs
            kernels.append(nnx.Param(scale * kernel))
            biases.append(nnx.Param(jnp.zeros((*leading, 1, outputs) if leading else (outputs,))))
        self.kernels, self.biases = nnx.List(kernels), nnx.List(biases)

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        """Applies the network to `[..., inputs]`, or to `[M, B, inputs]` for an ensemble."""
        shape, last = x.shape, len(self.kernels) - 1
        if x.ndim > 2 and self.kernels[0].ndim == 2:
            x = x.reshape(-1, shape[-1])  # gradients with several batch axes are three times slower on XLA:CPU
        for index, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            x = x @ kernel[...] + bias[...]
            x = x if index == last else nnx.silu(x)
        return x if x.ndim == len(shape) else x.reshape(*shape[:-1], x.shape[-1])
