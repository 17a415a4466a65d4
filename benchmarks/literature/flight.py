"""Problems of flight: a quadrotor in space, a landing on Mars and a transfer between orbits."""

from typing import Any

import numpy as np

from benchmarks.formulas import Limit, Maths, Reference, Vector
from envs.physics import rk4


def quadrotor_3d() -> Reference:
    """Returns a quadrotor that flies between pillars and a sphere and hovers at the far end.

    Model of Mellinger & Kumar 2011, with quaternions. State (p m, q, v m/s, ω rad/s), 13 numbers, q = (w, x, y, z) from the
    body to the world; action: thrusts of the front, left, back and right rotor, each in [0, 3] N; H = 50 steps of 0.04 s
    (RK4) from hover at the origin; 0.5 kg, arm 0.17 m, inertia (0.0023, 0.0023, 0.004) kg m², drag torque 0.016 m per N of
    thrust, g = 9.81 m/s²; goal (4, 1, 0.5).

        ṗ = v,  q̇ = q ⊗ (0, ω) / 2,  v̇ = R(q) e_z Σu / m - g e_z,  I ω̇ = τ - ω × I ω
        τ = (l (u_2 - u_4), l (u_3 - u_1), 0.016 (u_1 - u_2 + u_3 - u_4))
        stage = 0.02 |p - goal|² + 0.1 (x² + y² + z²) + 0.01 |v|² + 0.005 |ω|² + 0.01 Σ (u_i - mg/4)²
        terminal = 20 |p - goal|² + 10 (x² + y² + z²) + 5 |v|² + 0.5 |ω|²

    Limits: outside the vertical pillars (x, y, r) and the sphere (x, y, z, r) below; -0.5 <= p_z <= 2.
    """
    mass, arm, inertia, drag, gravity, goal = 0.5, 0.17, (0.0023, 0.0023, 0.004), 0.016, 9.81, (4.0, 1.0, 0.5)
    pillars, sphere = ((1.2, 0.2, 0.45), (2.6, 0.3, 0.4)), (3.2, 1.2, 0.3, 0.4)
    hover = 0.25 * mass * gravity

    def dynamics(m: Maths, x: Vector, u: Vector) -> Vector:
        def derivative(s: Vector, u: Vector) -> Vector:
            w, x, y, z, p, q, r = s[3], s[4], s[5], s[6], s[10], s[11], s[12]
            lift = (u[0] + u[1] + u[2] + u[3]) / mass
            torque = arm * (u[1] - u[3]), arm * (u[2] - u[0]), drag * (u[0] - u[1] + u[2] - u[3])
            return m.stack(
                *(s[7], s[8], s[9]),
                0.5 * (-x * p - y * q - z * r),
                0.5 * (w * p + y * r - z * q),
                0.5 * (w * q + z * p - x * r),
                0.5 * (w * r + x * q - y * p),
                2.0 * (x * z + w * y) * lift,
                2.0 * (y * z - w * x) * lift,
                (1.0 - 2.0 * (x**2 + y**2)) * lift - gravity,
                (torque[0] - (inertia[2] - inertia[1]) * q * r) / inertia[0],
                (torque[1] - (inertia[0] - inertia[2]) * p * r) / inertia[1],
                (torque[2] - (inertia[1] - inertia[0]) * p * q) / inertia[2],
            )

        return rk4(derivative, x, u, 0.04)

    def squares(x: Vector, first: int) -> Any:
        return x[first] ** 2 + x[first + 1] ** 2 + x[first + 2] ** 2

    def distance(x: Vector) -> Any:
        return (x[0] - goal[0]) ** 2 + (x[1] - goal[1]) ** 2 + (x[2] - goal[2]) ** 2

    def stage(m: Maths, x: Vector, u: Vector) -> Any:
        motion = 0.1 * squares(x, 4) + 0.01 * squares(x, 7) + 0.005 * squares(x, 10)
        return 0.02 * distance(x) + motion + 0.01 * sum((u[i] - hover) ** 2 for i in range(4))

    def terminal(m: Maths, x: Vector) -> Any:
        return 20.0 * distance(x) + 10.0 * squares(x, 4) + 5.0 * squares(x, 7) + 0.5 * squares(x, 10)

    def clear(m: Maths, x: Vector) -> Vector:
        upright = (1.0 - ((x[0] - cx) ** 2 + (x[1] - cy) ** 2) / r**2 for cx, cy, r in pillars)
        cx, cy, cz, r = sphere
        return m.stack(*upright, 1.0 - ((x[0] - cx) ** 2 + (x[1] - cy) ** 2 + (x[2] - cz) ** 2) / r**2)

    limits = (Limit("clear", clear), Limit("height", lambda m, x: m.stack(x[2] - 2.0, -0.5 - x[2])))
    start = (0.0, 0.0, 0.0, 1.0) + (0.0,) * 9
    return Reference("quadrotor_3d", 50, (0.0,) * 4, (3.0,) * 4, start, dynamics, stage, terminal, limits)


def powered_descent() -> Reference:
    """Returns a powered landing on Mars at minimal fuel, in SI units.

    Açıkmeşe & Ploen 2007, with the figures of their example. State (x, y m along the ground, z m height, their rates m/s,
    mass kg); action: thrust, kN, |u_i| <= 13.26; H = 52 steps of 1.5 s (RK4) from (1500, 300, 2000, -75, 20, -100, 1905).

        r̈ = 1000 u / mass - 3.7114 e_z,   mass' = -0.453 |u|   (kg/s; |u| smoothed with 1 N)
        stage = 0.01 · 1.5 · 0.453 |u|   (the fuel in units of 100 kg),      terminal = 0

    Limits: the engine burns all the time, 4.972 <= |u| <= 13.26 kN, as |u|² divided by the square of the bound; the craft
    stays above a cone of 4° around the target, `sqrt(x² + y² + 1) tan 4° <= z + 0.1`, divided by 100 m; at t = H it rests
    at the origin, `r/100 m`, `v/(10 m/s)`. The lower bound of the thrust is not convex.
    """
    low, high, burn, dt, slope = 4.972, 13.26, 0.453, 1.5, float(np.tan(np.radians(4.0)))

    def thrust(m: Maths, u: Vector) -> Any:
        return m.sqrt(u[0] ** 2 + u[1] ** 2 + u[2] ** 2 + 1e-6)

    def dynamics(m: Maths, x: Vector, u: Vector) -> Vector:
        def derivative(x: Vector, u: Vector) -> Vector:
            pull = [1000.0 * u[i] / x[6] for i in range(3)]
            return m.stack(x[3], x[4], x[5], pull[0], pull[1], pull[2] - 3.7114, -burn * thrust(m, u))

        return rk4(derivative, x, u, dt)

    def stage(m: Maths, x: Vector, u: Vector) -> Any:
        return 0.01 * dt * burn * thrust(m, u)

    def terminal(m: Maths, x: Vector) -> Any:
        return 0.0 * x[0]

    def engine(m: Maths, u: Vector) -> Vector:
        square = u[0] ** 2 + u[1] ** 2 + u[2] ** 2
        return m.stack(square / high**2 - 1.0, 1.0 - square / low**2)

    def cone(m: Maths, x: Vector) -> Vector:
        return m.stack((slope * m.sqrt(x[0] ** 2 + x[1] ** 2 + 1.0) - x[2] - 0.1) / 100.0)

    def landed(m: Maths, x: Vector) -> Vector:
        return m.stack(x[0] / 100.0, x[1] / 100.0, x[2] / 100.0, x[3] / 10.0, x[4] / 10.0, x[5] / 10.0)

    limits = (
        Limit("engine", engine, of_actions=True),
        Limit("cone", cone, last=51),
        Limit("landed", landed, 52, equality=True),
    )
    start = (1500.0, 300.0, 2000.0, -75.0, 20.0, -100.0, 1905.0)
    return Reference("powered_descent", 52, (-high,) * 3, (high,) * 3, start, dynamics, stage, terminal, limits)


def orbit_transfer() -> Reference:
    """Returns the transfer from the Earth's orbit to the largest circular orbit at constant thrust in a given time.

    Bryson & Ho 1975, Applied Optimal Control, sec. 2.5, in units in which the Earth's orbit has radius and speed 1. State
    (radius r, radial speed u, tangential speed v, t); action w: radial and tangential share of the largest thrust; H = 60
    steps of 3.3155/60 (RK4) from (1, 0, 1, 0). Time t is the fourth state; the thrust is 0.1405, the mass 1 - 0.07487 t.

        ṙ = u,   u̇ = v²/r - 1/r² + a w_1,   v̇ = -u v / r + a w_2,   a = 0.1405 / (1 - 0.07487 t)
        stage = 0,   terminal = -r

    Limits: `w_1² + w_2² <= 1`; at t = H the orbit is circular, `u = 0, v² r = 1`. The largest radius is 1.5252 in continuous
    time.
    """
    dt = 3.3155 / 60.0

    def dynamics(m: Maths, x: Vector, u: Vector) -> Vector:
        def derivative(x: Vector, u: Vector) -> Vector:
            push = 0.1405 / (1.0 - 0.07487 * x[3])
            fall = x[2] ** 2 / x[0] - 1.0 / x[0] ** 2
            return m.stack(x[1], fall + push * u[0], push * u[1] - x[1] * x[2] / x[0], 1.0)

        return rk4(derivative, x, u, dt)

    def stage(m: Maths, x: Vector, u: Vector) -> Any:
        return 0.0 * u[0]

    def terminal(m: Maths, x: Vector) -> Any:
        return -x[0]

    def circular(m: Maths, x: Vector) -> Vector:
        return m.stack(x[1], x[2] ** 2 * x[0] - 1.0)

    limits = (
        Limit("thrust", lambda m, u: m.stack(u[0] ** 2 + u[1] ** 2 - 1.0), of_actions=True),
        Limit("circular", circular, 60, equality=True),
    )
    start = (1.0, 0.0, 1.0, 0.0)
    return Reference("orbit_transfer", 60, (-1.0, -1.0), (1.0, 1.0), start, dynamics, stage, terminal, limits)
