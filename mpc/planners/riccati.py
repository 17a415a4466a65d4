"""Linear-quadratic subproblems with box limits on the controls: the backward passes of iLQR.

Around a trajectory (x, u), with defects d[t] = f(x[t], u[t]) - x[t+1], the small changes δx, δu minimise

    Σ_t  g[t]ᵀ z[t] + ½ z[t]ᵀ H[t] z[t]  +  terminal,      z = (δu, δx),   low <= δu <= high
    subject to  δx[t+1] = F[t] z[t] + d[t]

by the policy δu = k + K δx of dynamic programming. Everything is written out by hand for small control sizes: a LAPACK
call inside a loop would keep XLA:CPU from hoisting it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array


class Expansion(NamedTuple):
    """Second-order model of a problem around a trajectory, for V controls, N states and Z = V + N, controls first.

    `jacobian`: `[H, N, Z]`. `defects`: `[H, N]`. `gradient`: `[H, Z]`. `hessian`: `[H, Z, Z]`.
    `terminal_gradient`: `[N]`. `terminal_hessian`: `[N, N]`. `low`, `high`: `[H, V]`, limits of the change in control.
    """

    jacobian: Array
    defects: Array
    gradient: Array
    hessian: Array
    terminal_gradient: Array
    terminal_hessian: Array
    low: Array
    high: Array


class Policy(NamedTuple):
    """Changes of control `δu = k + K δx`: `feedforward` k `[H, V]`, `gain` K `[H, V, N]`; `decrease`, the model's promise."""

    feedforward: Array
    gain: Array
    decrease: Array


def factorise(matrix: Array, floor: Array) -> tuple[list[Array], list[Array]]:
    """`L D Lᵀ` of a symmetric matrix `[V, V]`, whose pivots become `max(|pivot|, floor)`: positive definite whatever it was.

    Returns:
        The columns of L, each `[V]`, and the pivots.
    """
    columns, pivots = [], []
    below = jnp.arange(len(matrix))
    for i in range(len(matrix)):
        pivot = jnp.maximum(jnp.abs(matrix[i, i]), floor)
        column = jnp.where(below > i, matrix[:, i] / pivot, jnp.where(below == i, 1.0, 0.0)).astype(matrix.dtype)
        matrix = matrix - pivot * column[:, None] * column
        columns.append(column)
        pivots.append(pivot)
    return columns, pivots


def substitute(factors: tuple[list[Array], list[Array]], right: Array) -> Array:
    """Solve `L D Lᵀ X = right` for X and `right` `[V, M]`."""
    columns, pivots = factors
    rows: list[Array] = []
    for column, pivot in zip(columns, pivots, strict=True):
        row = right[len(rows)]
        right = right - column[:, None] * row
        rows.append(row / pivot)
    for i in reversed(range(len(rows))):
        for j in range(i + 1, len(rows)):
            rows[i] = rows[i] - columns[i][j] * rows[j]
    return jnp.stack(rows)


def limited_policy(model: Array, low: Array, high: Array, floor: Array) -> Array:
    """Minimise a quadratic in the controls within their limits, for the present state and for states nearby.

    `½ δuᵀ H δu + δuᵀ (C δx + g)` over `low <= δu <= high`, whose answer is `δu = k + K δx`. One control is solved in closed
    form; several by projected Newton (Tassa, Mansard & Todorov 2014, algorithm 1). Controls that end at a limit get no
    feedback.

    Args:
        model: `[H | C | g]`, `[V, V + N + 1]`.
        low: `[V]`.
        high: `[V]`.
        floor: Smallest pivot H is allowed.

    Returns:
        `[K | k]`, `[V, N + 1]`.
    """
    size = len(model)
    hessian, right = model[:, :size], model[:, size:]
    if size == 1:
        newton = -right / jnp.maximum(jnp.abs(hessian[0, 0]), floor)
        k = jnp.clip(newton[:, -1], low, high)
        return jnp.concatenate([jnp.where((k == newton[:, -1])[:, None], newton[:, :-1], 0.0), k[:, None]], axis=1)
    columns, pivots = factorise(hessian, floor)
    hessian = sum(d * c[:, None] * c for c, d in zip(columns, pivots, strict=True))
    gradient = right[:, -1]

    def free(k: Array) -> Array:
        slope = gradient + hessian @ k
        return ~(((k <= low) & (slope > 0)) | ((k >= high) & (slope < 0)))

    def solve(free: Array, right: Array) -> Array:
        both = free[:, None] & free
        kept = jnp.where(both, hessian, jnp.eye(size, dtype=hessian.dtype))
        return -substitute(factorise(kept, floor), jnp.where(free[:, None], right, 0.0))

    def improve(_: int, k: Array) -> Array:
        newton = solve(free(k), (gradient + hessian @ k)[:, None])[:, 0]
        tried = jnp.clip(k + jnp.array([1.0, 0.5, 0.1], k.dtype)[:, None] * newton, low, high)
        values = tried @ gradient + 0.5 * jnp.sum(tried * (tried @ hessian), axis=1)
        return tried[jnp.argmin(values)]

    k = jax.lax.fori_loop(0, size + 2, improve, jnp.clip(jnp.zeros_like(gradient), low, high))
    return jnp.concatenate([solve(free(k), right[:, :-1]), k[:, None]], axis=1)


def backward(expansion: Expansion, damping: Array, floor: Array) -> Policy:
    """Dynamic programming from the end (Riccati), with `½ damping |δu|²` added to every stage (Levenberg & Marquardt)."""
    controls = expansion.low.shape[1]
    regular = damping * jnp.diag(jnp.arange(expansion.gradient.shape[1]) < controls).astype(damping.dtype)

    def stage(value: Array, step: tuple[Array, ...]):
        jacobian, defect, gradient, hessian, low, high = step  # value = [Vxx | Vx]
        ahead = value[:, :-1] @ jnp.concatenate([jacobian, defect[:, None]], axis=1)
        ahead = ahead.at[:, -1].add(value[:, -1])
        model = jacobian.T @ ahead + jnp.concatenate([hessian + regular, gradient[:, None]], axis=1)
        policy = limited_policy(model[:controls], low, high, floor)
        k = policy[:, -1]
        decrease = k @ model[:controls, -1] + 0.5 * k @ (model[:controls, :controls] @ k)
        return model[controls:, controls:] + model[controls:, :controls] @ policy, (policy, decrease)

    value = jnp.concatenate([expansion.terminal_hessian, expansion.terminal_gradient[:, None]], axis=1)
    steps = (expansion.jacobian, expansion.defects, expansion.gradient, expansion.hessian, expansion.low, expansion.high)
    _, (policy, decrease) = jax.lax.scan(stage, value, steps, reverse=True)
    return Policy(policy[:, :, -1], policy[:, :, :-1], -jnp.sum(decrease))
