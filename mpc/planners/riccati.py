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

    `jacobian`: `[H, N, Z]`. `defects`: `[H, N]`. `gradient`: `[H, Z]`. `hessian`: `[H, Z, Z]`. `low`, `high`: `[H, V]`,
    limits of the change in control. `terminal_gradient`: `[N]`. `terminal_hessian`: `[N, N]`.
    """

    jacobian: Array
    defects: Array
    gradient: Array
    hessian: Array
    low: Array
    high: Array
    terminal_gradient: Array
    terminal_hessian: Array


class AffineFeedback(NamedTuple):
    """Changes of control `δu = k + K δx`: `feedforward` k `[H, V]`, `gain` K `[H, V, N]`."""

    feedforward: Array
    gain: Array


def unknown(horizon: int, controls: int, states: int) -> tuple[Expansion, AffineFeedback]:
    """An expansion of which nothing is known, all zeros, and the policy that it leads to: to change nothing."""
    h, v, n, z = horizon, controls, states, controls + states
    shapes = ((h, n, z), (h, n), (h, z), (h, z, z), (h, v), (h, v), (n,), (n, n))
    return Expansion(*map(jnp.zeros, shapes)), AffineFeedback(jnp.zeros((h, v)), jnp.zeros((h, v, n)))


def factorise(matrix: Array, floor: Array) -> tuple[list[Array], list[Array]]:
    """`L D Lᵀ` of a symmetric matrix `[V, V]`, whose pivots become `max(|pivot|, floor)`: positive definite whatever it was.

    `floor`: of all pivots, or of each, `[V]`.

    Returns:
        The columns of L, each `[V]`, and the pivots.
    """
    columns, pivots = [], []
    below, floor = jnp.arange(len(matrix)), jnp.broadcast_to(floor, len(matrix))
    for i in range(len(matrix)):
        pivot = jnp.maximum(jnp.abs(matrix[i, i]), floor[i])
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
    form; several by projected Newton (Tassa, Mansard & Todorov 2014, algorithm 1) and coordinate descent in turn. Controls
    that end at a limit get no feedback.

    Args:
        model: `[H | C | g]`, `[V, V + N + 1]`.
        low: `[V]`.
        high: `[V]`.
        floor: Smallest pivot H is allowed, or those of each control, `[V]`.

    Returns:
        `[K | k]`, `[V, N + 1]`.
    """
    size = len(model)
    hessian, right = model[:, :size], model[:, size:]
    if size == 1:
        newton = -right / jnp.maximum(jnp.abs(hessian[0, 0]), jnp.ravel(floor)[0])
        k = jnp.clip(newton[:, -1], low, high)
        return jnp.concatenate([jnp.where((k == newton[:, -1])[:, None], newton[:, :-1], 0.0), k[:, None]], axis=1)
    columns, pivots = factorise(hessian, floor)
    lower = jnp.stack(columns, axis=1)
    hessian = lower * jnp.stack(pivots) @ lower.T
    gradient = right[:, -1]

    def free(k: Array) -> Array:
        slope = gradient + hessian @ k
        return ~(((k <= low) & (slope > 0)) | ((k >= high) & (slope < 0)))

    def solve(free: Array, right: Array) -> Array:
        both = free[:, None] & free
        kept = jnp.where(both, hessian, jnp.eye(size, dtype=hessian.dtype))
        return -substitute(factorise(kept, floor), jnp.where(free[:, None], right, 0.0))

    def improve(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        count, k, _ = carry
        moving = free(k)
        newton = solve(moving, (gradient + hessian @ k)[:, None])[:, 0]
        tried = jnp.clip(k + jnp.array([1.0, 0.5, 0.1, 0.0], k.dtype)[:, None] * newton, low, high)
        # a whole step that met no limit, and leaves each control at one pressed against it, is the minimum
        settled = (tried[0] == k + newton).all() & (free(tried[0]) == moving).all()
        values = tried @ gradient + 0.5 * jnp.sum(tried * (tried @ hessian), axis=1)
        better = tried[jnp.argmin(values)]
        for i in range(size):  # clipped Newton steps may all lead uphill; along one control at a time none ever does
            best = better[i] - (gradient[i] + hessian[i] @ better) / hessian[i, i]
            better = jnp.where(jnp.arange(size) == i, jnp.clip(best, low[i], high[i]), better)
        return count + 1, jnp.where(settled, tried[0], better), settled

    def unsettled(carry: tuple[Array, Array, Array]) -> Array:
        count, _, settled = carry
        return (count < size + 2) & ~settled

    start = (jnp.asarray(0), jnp.clip(jnp.zeros_like(gradient), low, high), jnp.asarray(False))
    _, k, _ = jax.lax.while_loop(unsettled, improve, start)
    return jnp.concatenate([solve(free(k), right[:, :-1]), k[:, None]], axis=1)


def backward(expansion: Expansion, damping: Array, floor: Array) -> AffineFeedback:
    """Dynamic programming from the end, step by step (Riccati).

    Args:
        expansion: The problem around a trajectory.
        damping: Levenberg and Marquardt's μ: `½ Σ μ δu²` is added to every stage; one for all controls, or `[V]`.
        floor: Smallest pivot allowed where a control is eliminated, alike; negative ones change sign.
    """
    size = expansion.low.shape[1]

    def stage(value: Array, step: tuple[Array, ...]) -> tuple[Array, Array]:
        jacobian, defect, terms, low, high = step
        model = _ahead(value, jacobian, defect, terms)
        policy = limited_policy(model[:size], low, high, floor)
        return model[size:, size:] + _product(model[size:, :size], policy), policy

    _, policy = jax.lax.scan(stage, _last_value(expansion), _stages(expansion, damping), reverse=True)
    return AffineFeedback(policy[:, :, -1], policy[:, :, :-1])


def parallel_backward(expansion: Expansion, damping: Array, floor: Array, rounds: int = 10) -> AffineFeedback:
    """The same policy in O(log H) parallel time, by an associative scan (Särkkä & García-Fernández 2023).

    A stretch of stages, its controls eliminated, is a quadratic in the states at its two ends; two stretches combine into
    one, and all stretches that reach to the end make the values. Which controls are clamped is found by repetition: begin
    with none, solve, clamp those that the policy clamps, until they stay the same.

    The values agree with `backward` to round-off where the subproblem is convex, so that no pivot has to be changed, and
    where its stage Hessian in the controls, damping included, is invertible.

    Args:
        expansion: The problem around a trajectory.
        damping: See `backward`; must be positive where the controls have no curvature of their own.
        floor: See `backward`.
        rounds: Repetitions at most.
    """
    jacobians, defects, terms, low, high = _stages(expansion, damping)
    last = _last_value(expansion)
    zero = jnp.zeros_like(last[:, :-1])
    end = (zero, zero[0], zero, last[:, :-1], last[:, -1])

    def policy_for(fixed: Array, clamped: Array) -> Array:
        elements = jax.vmap(_stretch)(jacobians, defects, terms, fixed, clamped)
        elements = jax.tree.map(lambda e, x: jnp.concatenate([e, x[None]]), elements, end)
        *_, hessian, gradient = jax.lax.associative_scan(_join_backward, elements, reverse=True)
        values = jnp.concatenate([hessian, gradient[:, :, None]], axis=2)[1:]
        models = jax.vmap(_ahead)(values, jacobians, defects, terms)
        return jax.vmap(limited_policy, in_axes=(0, 0, 0, None))(models[:, : low.shape[1]], low, high, floor)

    def clamps(policy: Array) -> Array:
        return (policy[:, :, -1] <= low) | (policy[:, :, -1] >= high)

    def unsettled(carry: tuple[Array, Array, Array, Array]) -> Array:
        count, _, _, settled = carry
        return (count < rounds) & ~settled

    def repeat(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        count, policy, clamped, _ = carry
        policy = policy_for(jnp.where(clamped, policy[:, :, -1], 0.0), clamped)
        return count + 1, policy, clamps(policy), (clamps(policy) == clamped).all()

    nothing = jnp.zeros((*low.shape, defects.shape[1] + 1), low.dtype)
    start = (jnp.asarray(0), nothing, jnp.zeros(low.shape, bool), jnp.asarray(False))
    _, policy, _, _ = jax.lax.while_loop(unsettled, repeat, start)
    return AffineFeedback(policy[:, :, -1], policy[:, :, :-1])


def _stages(expansion: Expansion, damping: Array) -> tuple[Array, ...]:
    controls, size = expansion.low.shape[1], expansion.gradient.shape[1]
    hessian = expansion.hessian + jnp.diag(jnp.zeros(size, damping.dtype).at[:controls].set(damping))
    model = jnp.concatenate([hessian, expansion.gradient[:, :, None]], axis=2)
    return expansion.jacobian, expansion.defects, model, expansion.low, expansion.high


def _last_value(expansion: Expansion) -> Array:
    return jnp.concatenate([expansion.terminal_hessian, expansion.terminal_gradient[:, None]], axis=1)


def _ahead(value: Array, jacobian: Array, defect: Array, model: Array) -> Array:
    """Hessian and gradient `[Z, Z + 1]` of a stage and, through the dynamics, the value `[Vxx | Vx]` of all that follows."""
    moved = _product(value[:, :-1], jnp.concatenate([jacobian, defect[:, None]], axis=1))
    moved = jnp.concatenate([moved[:, :-1], (moved[:, -1] + value[:, -1])[:, None]], axis=1)
    return model + _product(jacobian.T, moved)


def _product(a: Array, b: Array) -> Array:
    """`a @ b`, written out where matrices are small: from 64 results on XLA:CPU calls a library, at 0.4 µs."""
    if a.shape[0] * b.shape[0] * b.shape[1] > 2048:
        return a @ b
    return (a[:, :, None] * b).sum(axis=1)


Stretch = tuple[Array, Array, Array, Array, Array]


def _stretch(jacobian: Array, defect: Array, model: Array, fixed: Array, clamped: Array) -> Stretch:
    """One stage as `(A, b, C, J, g)`: its cost between δx and δx⁺ is

    max over λ of  ½ δxᵀJδx + gᵀδx - ½ λᵀCλ + λᵀ(A δx + b - δx⁺)
    """
    size = len(fixed)
    free = ~clamped
    kept = jnp.where(free[:, None] & free, model[:size, :size], jnp.eye(size, dtype=model.dtype))
    cross = jnp.where(free[:, None], model[:size, size:-1], 0.0)
    slope = jnp.where(free, model[:size, -1] + model[:size, :size] @ fixed, 0.0)
    inputs = jnp.where(free, jacobian[:, :size], 0.0)
    solved = jnp.linalg.solve(kept, jnp.concatenate([cross, slope[:, None], inputs.T], axis=1))
    feedback, newton, across = solved[:, : cross.shape[1]], solved[:, cross.shape[1]], solved[:, cross.shape[1] + 1 :]
    return (
        jacobian[:, size:] - inputs @ feedback,
        defect + jacobian[:, :size] @ fixed - inputs @ newton,
        inputs @ across,
        model[size:, size:-1] - cross.T @ feedback,
        model[size:, -1] + model[size:, :size] @ fixed - cross.T @ newton,
    )


def _join_backward(later: Stretch, earlier: Stretch) -> Stretch:
    """Two neighbouring stretches as one; a reversed scan hands over the later one first."""
    (a1, b1, c1, j1, g1), (a2, b2, c2, j2, g2) = earlier, later
    mix = jnp.eye(c1.shape[-1], dtype=c1.dtype) + c1 @ j2
    right = jnp.concatenate([a1, (b1 - _times(c1, g2))[..., None], c1], axis=-1)
    solved = jnp.linalg.solve(mix, right)
    n = c1.shape[-1]
    a, b, c = solved[..., :n], solved[..., n], solved[..., n + 1 :]
    across = jnp.linalg.solve(jnp.swapaxes(mix, -1, -2), (g2 + _times(j2, b1))[..., None])[..., 0]
    back = jnp.swapaxes(a1, -1, -2)
    return (
        a2 @ a,
        _times(a2, b) + b2,
        a2 @ c @ jnp.swapaxes(a2, -1, -2) + c2,
        j1 + back @ j2 @ a,
        g1 + _times(back, across),
    )


def _times(matrix: Array, vector: Array) -> Array:
    return jnp.einsum("...ij,...j->...i", matrix, vector)
