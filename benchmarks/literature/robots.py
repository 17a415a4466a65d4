"""Problems of pendulum-like robots: acrobot, a long cart-pole and a two-link arm."""

from typing import Any

import numpy as np

from benchmarks.formulas import Limit, Maths, Reference, Vector
from envs.physics import rk4


def two_links(
    m: Maths, x: Vector, torque: tuple[Any, Any], mass: float, length: float, inertia: float, gravity: float
) -> Vector:
    """Returns the derivative of two equal links in a vertical plane.

    Murray, Li & Sastry 1994, A Mathematical Introduction to Robotic Manipulation, ch. 4. State (q_1, q_2, q̇_1, q̇_2): the
    angle of the first link from straight down and of the second relative to the first. Centres of mass are in the middle of
    the links.
    """
    half = 0.5 * length
    cos = m.cos(x[1])
    shared = mass * (half**2 + length * half * cos) + inertia
    first = mass * half**2 + mass * (length**2 + half**2 + 2.0 * length * half * cos) + 2.0 * inertia
    second = mass * half**2 + inertia
    twist = mass * length * half * m.sin(x[1])
    swing = mass * gravity * half * m.sin(x[0] + x[1])
    load = (
        torque[0] + twist * (2.0 * x[2] * x[3] + x[3] ** 2) - mass * gravity * (half + length) * m.sin(x[0]) - swing,
        torque[1] - twist * x[2] ** 2 - swing,
    )
    determinant = first * second - shared**2
    return m.stack(
        x[2], x[3], (second * load[0] - shared * load[1]) / determinant, (first * load[1] - shared * load[0]) / determinant
    )


def acrobot() -> Reference:
    """Returns the swing-up of an acrobot: two links, a motor at the elbow only.

    Spong 1995, The swing up control problem for the acrobot. State as in `two_links`; action: torque, |u| <= 10 N m; H = 60
    steps of 0.05 s (RK4) from hanging at rest; links of 1 m, 1 kg and 0.0833 kg m², g = 9.81 m/s².

        stage = 0.05 (1 + cos q_1) + 0.05 (1 + cos(q_1 + q_2)) + 0.001 (q̇_1² + q̇_2²) + 0.001 u²
        terminal = 100 (1 + cos q_1) + 100 (1 + cos(q_1 + q_2)) + 5 (q̇_1² + q̇_2²)

    The end of the horizon is sensitive to the first actions; over 100 steps solvers that agree to 1e-9 end far apart.
    """

    def dynamics(m: Maths, x: Vector, u: Vector) -> Vector:
        return rk4(lambda x, u: two_links(m, x, (0.0, u[0]), 1.0, 1.0, 1.0 / 12.0, 9.81), x, u, 0.05)

    def height(m: Maths, x: Vector) -> Any:
        return 2.0 + m.cos(x[0]) + m.cos(x[0] + x[1])

    def stage(m: Maths, x: Vector, u: Vector) -> Any:
        return 0.05 * height(m, x) + 0.001 * (x[2] ** 2 + x[3] ** 2) + 0.001 * u[0] ** 2

    def terminal(m: Maths, x: Vector) -> Any:
        return 100.0 * height(m, x) + 5.0 * (x[2] ** 2 + x[3] ** 2)

    return Reference("acrobot", 60, (-10.0,), (10.0,), (0.0,) * 4, dynamics, stage, terminal)


def long_cartpole() -> Reference:
    """Returns the swing-up of a pole by a weak cart over 200 steps.

    Barto, Sutton & Anderson 1983 (the model); the task is that of Åström & Furuta 2000. State (p m, θ rad, v m/s, ω rad/s),
    θ = 0 upright; action |u| <= 3 N; H = 200 steps of 0.02 s (RK4) from (0, π, 0, 0). Cart 1 kg, point mass 0.3 kg on a rod
    of 0.5 m, g = 9.81 m/s².

        a = (u + m_p l ω² sin θ - m_p g sin θ cos θ) / (m_c + m_p sin² θ),   α = (g sin θ - a cos θ) / l
        stage = 0.02 (p² + 2(1 - cos θ) + 0.1 v² + 0.02 ω² + 0.01 u²)
        terminal = 10 p² + 50 (1 - cos θ) + 2 v² + 2 ω²
    """
    cart, pole, length, gravity = 1.0, 0.3, 0.5, 9.81

    def dynamics(m: Maths, x: Vector, u: Vector) -> Vector:
        def derivative(x: Vector, u: Vector) -> Vector:
            sin, cos = m.sin(x[1]), m.cos(x[1])
            force = u[0] + pole * sin * (length * x[3] ** 2 - gravity * cos)
            acceleration = force / (cart + pole * sin**2)
            return m.stack(x[2], x[3], acceleration, (gravity * sin - acceleration * cos) / length)

        return rk4(derivative, x, u, 0.02)

    def stage(m: Maths, x: Vector, u: Vector) -> Any:
        slow = 0.1 * x[2] ** 2 + 0.02 * x[3] ** 2 + 0.01 * u[0] ** 2
        return 0.02 * (x[0] ** 2 + 2.0 * (1.0 - m.cos(x[1])) + slow)

    def terminal(m: Maths, x: Vector) -> Any:
        return 10.0 * x[0] ** 2 + 50.0 * (1.0 - m.cos(x[1])) + 2.0 * x[2] ** 2 + 2.0 * x[3] ** 2

    return Reference("long_cartpole", 200, (-3.0,), (3.0,), (0.0, np.pi, 0.0, 0.0), dynamics, stage, terminal)


def arm() -> Reference:
    """Returns a two-link arm that moves around an obstacle and stops at its target.

    Model as in `two_links` with motors at both joints; links of 0.5 m, 1 kg and 0.0208 kg m², g = 9.81 m/s². Action: torques
    |u_1| <= 15, |u_2| <= 6 N m; H = 50 steps of 0.03 s (RK4) from rest at (0.2, 0.4) to rest at (2, 0.5).

        stage = 0.01 u_1² + 0.02 u_2² + 0.01 (q̇_1² + q̇_2²),   terminal = 0

    Limits: tip, elbow and the middle of the forearm are outside a circle around (0.95, -0.25) of radius 0.2 m; at t = H the
    arm rests at its target. The arm folds to pass the obstacle, with the elbow up or down.
    """
    target, centre, radius = (2.0, 0.5), (0.95, -0.25), 0.2

    def dynamics(m: Maths, x: Vector, u: Vector) -> Vector:
        return rk4(lambda x, u: two_links(m, x, (u[0], u[1]), 1.0, 0.5, 1.0 / 48.0, 9.81), x, u, 0.03)

    def stage(m: Maths, x: Vector, u: Vector) -> Any:
        return 0.01 * u[0] ** 2 + 0.02 * u[1] ** 2 + 0.01 * (x[2] ** 2 + x[3] ** 2)

    def terminal(m: Maths, x: Vector) -> Any:
        return 0.0 * x[0]

    def clear(m: Maths, x: Vector) -> Vector:
        elbow = 0.5 * m.sin(x[0]), -0.5 * m.cos(x[0])
        along = m.sin(x[0] + x[1]), -m.cos(x[0] + x[1])

        def outside(reach: float) -> Any:
            across, up = elbow[0] + reach * along[0] - centre[0], elbow[1] + reach * along[1] - centre[1]
            return 1.0 - (across**2 + up**2) / radius**2

        return m.stack(outside(0.0), outside(0.25), outside(0.5))

    def stopped(m: Maths, x: Vector) -> Vector:
        return m.stack(x[0] - target[0], x[1] - target[1], x[2], x[3])

    limits = (Limit("clear", clear), Limit("stopped", stopped, 50, equality=True))
    start = (0.2, 0.4, 0.0, 0.0)
    return Reference("arm", 50, (-15.0, -6.0), (15.0, 6.0), start, dynamics, stage, terminal, limits)
