"""The dynamics of a MuJoCo model in JAX, by MJX, to plan through.

    s = (q, q̇),     s[t+1] = (MJX step)^n (s[t], u[t]),     n · timestep = period

The functions are pure and differentiable, and can be exported: MJX is told to factorise sparsely and to solve constraints by
conjugate gradients, which needs no LAPACK. Freeman et al. 2021 (Brax, of which MJX is the descendant); Todorov et al. 2012.
"""

import copy
import importlib
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any
Dynamics = Callable[[PyTree, jax.Array, jax.Array], jax.Array]


def mjx_dynamics(model: Any, period: float, *, steps: int | None = None, solver_iterations: int = 4) -> Dynamics:
    """The dynamics of a MuJoCo model over one control period.

    Args:
        model: A `mujoco.MjModel`, which is not changed.
        period: Seconds for which an action is held.
        steps: Of the integrator in that time; as many as the model's own time step asks for unless told. Fewer cost
            proportionally less, and are less accurate.
        solver_iterations: Of the constraint solver, for contacts, limits and other constraints.

    The integrator is the model's where that is Euler's or RK4. `implicitfast` becomes Euler's, which also takes the damping
    of joints implicitly, but needs no LAPACK.

    Returns:
        `(params, state, action) -> state`, the state positions and velocities in one vector `[nq + nv]`, the action `[nu]`
        in the actuators' units. There are no params: the model's numbers are constants of the program.

    Raises:
        ImportError: If MJX is missing, with how to install it.
        ValueError: If the actuators have states of their own, or a number is not positive.

    Warns:
        UserWarning: If MJX lacks the model's integrator, `implicit`, and takes Euler's instead.
    """
    if steps is None:
        steps = max(1, round(period / model.opt.timestep))
    if not period > 0 or steps < 1 or solver_iterations < 1:
        raise ValueError(
            "period must be positive, steps and solver_iterations at least 1; "
            f"got period={period}, steps={steps}, solver_iterations={solver_iterations}"
        )
    if model.na:
        raise ValueError(f"a state here is positions and velocities, and this model's actuators have {model.na} states more")
    try:
        with redirect_stdout(sys.stderr):  # MJX prints which of its back ends are missing
            mujoco, mjx = (importlib.import_module(name) for name in ("mujoco", "mujoco.mjx"))
    except ImportError as error:
        raise ImportError(f"planning through MuJoCo needs MJX ({error}): pip install 'craik[mujoco]'") from error
    model = copy.copy(model)
    model.opt.timestep, model.opt.iterations = period / steps, solver_iterations
    model.opt.solver, model.opt.jacobian = mujoco.mjtSolver.mjSOL_CG, mujoco.mjtJacobian.mjJAC_SPARSE
    if model.opt.integrator == mujoco.mjtIntegrator.mjINT_IMPLICIT:
        warnings.warn("MJX has no integrator 'implicit': planning takes Euler's instead", stacklevel=2)
    if model.opt.integrator != mujoco.mjtIntegrator.mjINT_RK4:
        model.opt.integrator = mujoco.mjtIntegrator.mjINT_EULER
    physics, blank = mjx.put_model(model), mjx.make_data(model)

    def advance(both: jax.Array) -> jax.Array:
        state, action = both[: model.nq + model.nv], both[model.nq + model.nv :]
        data = blank.replace(qpos=state[: model.nq], qvel=state[model.nq :], ctrl=action)
        if steps == 1:
            data = mjx.step(physics, data)
        else:  # one step is compiled, not all
            data = jax.lax.scan(lambda data, _: (mjx.step(physics, data), None), data, length=steps)[0]
        return jnp.concatenate([data.qpos, data.qvel]).astype(both.dtype)

    following = _with_jacobian(advance)
    return lambda params, state, action: following(jnp.concatenate([state, action]))


def _with_jacobian(function: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """Wrap a function of one short vector so that its derivatives are products with its Jacobian.

    The Jacobian comes from one forward pass, all columns side by side. A backward pass through MJX would store several
    kilobytes of intermediate results for every step of a plan.
    """

    @jax.custom_jvp
    def wrapped(x: jax.Array) -> jax.Array:
        return function(x)

    @wrapped.defjvp
    def derivative(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
        (x,), (tangent,) = primals, tangents
        value, jacobian = jax.vmap(lambda column: jax.jvp(function, (x,), (column,)), out_axes=(None, 1))(jnp.eye(len(x)))
        return value, jacobian @ tangent

    return wrapped
