"""Five reference problems with known optima; see `benchmarks.formulas` for their form."""

from typing import Any

import numpy as np

from benchmarks.formulas import Limit, Maths, Reference, Vector, outside_circles
from envs.physics import rk4


def pendulum() -> Reference:
    """Returns the swing-up of a pendulum.

    State (θ rad, ω rad/s), θ = 0 upright; action u, |u| <= 2; H = 50 steps of 0.05 s from (π, 0).

        ω' = ω + (15 sin θ + 3u)·0.05,   θ' = θ + 0.05 ω'
        stage = 2(1 - cos θ) + 0.1 ω² + 0.001 u²,   terminal = 20(1 - cos θ) + ω²

    u = 0 is a saddle point.
    """

    def dynamics(m: Maths, x: Vector, u: Vector) -> Vector:
        speed = x[1] + (15.0 * m.sin(x[0]) + 3.0 * u[0]) * 0.05
        return m.stack(x[0] + 0.05 * speed, speed)

    def stage(m: Maths, x: Vector, u: Vector) -> Any:
        return 2.0 * (1.0 - m.cos(x[0])) + 0.1 * x[1] ** 2 + 0.001 * u[0] ** 2

    def terminal(m: Maths, x: Vector) -> Any:
        return 20.0 * (1.0 - m.cos(x[0])) + x[1] ** 2

    return Reference("pendulum", 50, (-2.0,), (2.0,), (np.pi, 0.0), dynamics, stage, terminal)


def cartpole() -> Reference:
    """Returns the swing-up of a pole on a cart.

    State (p m, θ rad, v m/s, ω rad/s), θ = 0 upright; action u N, |u| <= 10; H = 60 steps of 0.05 s (RK4) from
    (0, π, 0, 0). Cart 1 kg, point mass 0.1 kg on a rod of 0.5 m, g = 9.81 m/s².

        a = (u + m_p l ω² sin θ - m_p g sin θ cos θ) / (m_c + m_p sin² θ),   α = (g sin θ - a cos θ) / l
        stage = 0.1 p² + (1 - cos θ) + 0.01 v² + 0.01 ω² + 0.001 u²
        terminal = 10 p² + 100(1 - cos θ) + v² + ω²

    u = 0 is a saddle point; most starts end in a local optimum of cost 65.34448.
    """
    cart, pole, length, gravity = 1.0, 0.1, 0.5, 9.81

    def dynamics(m: Maths, x: Vector, u: Vector) -> Vector:
        def derivative(x: Vector, u: Vector) -> Vector:
            sin, cos = m.sin(x[1]), m.cos(x[1])
            force = u[0] + pole * length * x[3] ** 2 * sin - pole * gravity * sin * cos
            acceleration = force / (cart + pole * sin**2)
            return m.stack(x[2], x[3], acceleration, (gravity * sin - acceleration * cos) / length)

        return rk4(derivative, x, u, 0.05)

    def stage(m: Maths, x: Vector, u: Vector) -> Any:
        swing = 1.0 - m.cos(x[1])
        return 0.1 * x[0] ** 2 + swing + 0.01 * x[2] ** 2 + 0.01 * x[3] ** 2 + 0.001 * u[0] ** 2

    def terminal(m: Maths, x: Vector) -> Any:
        return 10.0 * x[0] ** 2 + 100.0 * (1.0 - m.cos(x[1])) + x[2] ** 2 + x[3] ** 2

    return Reference("cartpole", 60, (-10.0,), (10.0,), (0.0, np.pi, 0.0, 0.0), dynamics, stage, terminal)


def clohessy_wiltshire(n: float, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns A and B of the exact step `x' = A x + B u` of motion relative to a circular orbit, thrust held for dt.

    `ẍ = 3n²x + 2nẏ + u_x,  ÿ = -2nẋ + u_y,  z̈ = -n²z + u_z` with x radial (outward), y along the track, z across it
    (Clohessy & Wiltshire 1960); state (x, y, z, vx, vy, vz), mean motion n in rad/s.
    """
    s, c, nt = np.sin(n * dt), np.cos(n * dt), n * dt
    transition = np.array(
        [
            [4 - 3 * c, 0, 0, s / n, 2 * (1 - c) / n, 0],
            [6 * (s - nt), 1, 0, -2 * (1 - c) / n, (4 * s - 3 * nt) / n, 0],
            [0, 0, c, 0, 0, s / n],
            [3 * n * s, 0, 0, c, 2 * s, 0],
            [-6 * n * (1 - c), 0, 0, -2 * s, 4 * c - 3, 0],
            [0, 0, -n * s, 0, 0, c],
        ]
    )
    thrust = np.array(
        [
            [(1 - c) / n**2, 2 * (nt - s) / n**2, 0],
            [-2 * (nt - s) / n**2, 4 * (1 - c) / n**2 - 1.5 * dt**2, 0],
            [0, 0, (1 - c) / n**2],
            [s / n, 2 * (1 - c) / n, 0],
            [-2 * (1 - c) / n, 4 * s / n - 3 * dt, 0],
            [0, 0, s / n],
        ]
    )
    return transition, thrust


def rendezvous() -> Reference:
    """Returns the rendezvous of a spacecraft with a station at minimal fuel.

    State (x, y, z m, vx, vy, vz m/s) relative to the station on a circular orbit (`clohessy_wiltshire`, n = 0.00113
    rad/s); action: thrust acceleration per axis, mm/s², |u_i| <= 4; H = 50 steps of 20 s, from rest at
    (-100, -200, 60, 0, 0, 0).

        stage = 0.02 Σ_i (sqrt(u_i² + w²) - w),  w = 0.4   (the Δv in m/s, smoothed),      terminal = 0

    Limits: at t = H the craft is at rest at the port (0, 45, 0), `[(r - port)/100, v] = 0`; at all steps it is outside a
    sphere of 40 m around the station, `1 - |r|²/40² <= 0`; in the last 10 steps it is inside an approach cone of 20° with
    its tip 2 m inside the port, `sqrt(x² + z² + 0.1²) <= tan 20° (y - 43)`, divided by 100 m. The side of the sphere
    opposite to the port has an infeasible local minimum of the violation.
    """
    dt, radius, port, width = 20.0, 40.0, 45.0, 0.4
    transition, thrust = clohessy_wiltshire(0.00113, dt)
    thrust = 1e-3 * thrust  # the action is in mm/s²
    slope = float(np.tan(np.radians(20.0)))

    def dynamics(m: Maths, x: Vector, u: Vector) -> Vector:
        return transition @ x + thrust @ u

    def stage(m: Maths, x: Vector, u: Vector) -> Any:
        return sum(1e-3 * dt * (m.sqrt(u[i] ** 2 + width**2) - width) for i in range(3))

    def terminal(m: Maths, x: Vector) -> Any:
        return 0.0 * x[0]

    def docked(m: Maths, x: Vector) -> Vector:
        return m.stack(x[0] / 100.0, (x[1] - port) / 100.0, x[2] / 100.0, x[3], x[4], x[5])

    def sphere(m: Maths, x: Vector) -> Vector:
        return m.stack(1.0 - (x[0] ** 2 + x[1] ** 2 + x[2] ** 2) / radius**2)

    def cone(m: Maths, x: Vector) -> Vector:
        return m.stack((m.sqrt(x[0] ** 2 + x[2] ** 2 + 0.1**2) - slope * (x[1] - port + 2.0)) / 100.0)

    limits = (
        Limit("keep-out", sphere),
        Limit("cone", cone, 41),
        Limit("docked", docked, 50, equality=True),
    )
    start = (-100.0, -200.0, 60.0, 0.0, 0.0, 0.0)
    return Reference("rendezvous", 50, (-4.0,) * 3, (4.0,) * 3, start, dynamics, stage, terminal, limits)


def car() -> Reference:
    """Returns a car that drives between round obstacles and stops at the far end.

    State (x m, y m, θ rad, v m/s), a kinematic bicycle; action (a m/s², δ rad), |a| <= 4, |δ| <= 0.6; H = 50 steps of
    0.1 s (RK4) from (0, 0, 0, 3); wheelbase L = 2.5 m; goal (20, 0).

        ẋ = v cos θ,  ẏ = v sin θ,  θ̇ = v tan δ / L,  v̇ = a
        stage = 0.005 |p - goal|² + 0.1 θ² + 0.02 a² + 0.5 δ²,   terminal = 5 |p - goal|² + 5 θ² + 2 v²

    Limits: outside the circles (x, y, r) below, the car's own half-width included; -1 <= v <= 8, divided by 8.
    """
    dt, wheelbase, goal = 0.1, 2.5, 20.0
    circles = ((5.0, -0.3, 1.3), (8.5, 2.6, 1.3), (9.5, -2.2, 1.5), (13.0, 0.4, 1.4), (16.5, -2.0, 1.2), (16.5, 2.8, 1.3))

    def dynamics(m: Maths, x: Vector, u: Vector) -> Vector:
        def derivative(x: Vector, u: Vector) -> Vector:
            return m.stack(x[3] * m.cos(x[2]), x[3] * m.sin(x[2]), x[3] * m.tan(u[1]) / wheelbase, u[0])

        return rk4(derivative, x, u, dt)

    def stage(m: Maths, x: Vector, u: Vector) -> Any:
        distance = (x[0] - goal) ** 2 + x[1] ** 2
        return 0.005 * distance + 0.1 * x[2] ** 2 + 0.02 * u[0] ** 2 + 0.5 * u[1] ** 2

    def terminal(m: Maths, x: Vector) -> Any:
        return 5.0 * ((x[0] - goal) ** 2 + x[1] ** 2) + 5.0 * x[2] ** 2 + 2.0 * x[3] ** 2

    def speed(m: Maths, x: Vector) -> Vector:
        return m.stack((x[3] - 8.0) / 8.0, (-1.0 - x[3]) / 8.0)

    limits = (Limit("circles", outside_circles(circles)), Limit("speed", speed))
    start = (0.0, 0.0, 0.0, 3.0)
    return Reference("car", 50, (-4.0, -0.6), (4.0, 0.6), start, dynamics, stage, terminal, limits)


def quadrotor() -> Reference:
    """Returns a planar quadrotor that flies between round obstacles and hovers at the far end.

    State (x, z m, θ rad, vx, vz m/s, ω rad/s); action: the thrusts of the right and the left rotor, N, each in
    [0, 9.81]; H = 60 steps of 0.05 s (RK4), from rest at the origin; 1 kg, arm 0.4 m, inertia 0.16 kg m², g = 9.81 m/s²;
    goal (5, 0).

        v̇x = -(u_1 + u_2) sin θ / m,   v̇z = (u_1 + u_2) cos θ / m - g,   ω̇ = (u_1 - u_2) l / I
        stage = 0.02 |p - goal|² + 0.2 (1 - cos θ) + 0.01 (vx² + vz² + ω²) + 0.002 Σ (u_i - mg/2)²
        terminal = 20 |p - goal|² + 20 (1 - cos θ) + 5 (vx² + vz²) + ω²

    Limits: outside the circles (x, z, r) below, half the craft's size included; a floor and a ceiling, |z| <= 2,
    divided by 2.
    """
    dt, mass, arm, inertia, gravity, goal = 0.05, 1.0, 0.4, 0.16, 9.81, 5.0
    circles = ((1.4, 0.3, 0.6), (2.7, -0.9, 0.6), (2.9, 1.2, 0.6), (4.0, 0.1, 0.5))
    hover = 0.5 * mass * gravity

    def dynamics(m: Maths, x: Vector, u: Vector) -> Vector:
        def derivative(x: Vector, u: Vector) -> Vector:
            lift = (u[0] + u[1]) / mass
            turn = (u[0] - u[1]) * arm / inertia
            return m.stack(x[3], x[4], x[5], -lift * m.sin(x[2]), lift * m.cos(x[2]) - gravity, turn)

        return rk4(derivative, x, u, dt)

    def stage(m: Maths, x: Vector, u: Vector) -> Any:
        distance, speed = (x[0] - goal) ** 2 + x[1] ** 2, x[3] ** 2 + x[4] ** 2 + x[5] ** 2
        effort = (u[0] - hover) ** 2 + (u[1] - hover) ** 2
        return 0.02 * distance + 0.2 * (1.0 - m.cos(x[2])) + 0.01 * speed + 0.002 * effort

    def terminal(m: Maths, x: Vector) -> Any:
        distance = (x[0] - goal) ** 2 + x[1] ** 2
        return 20.0 * distance + 20.0 * (1.0 - m.cos(x[2])) + 5.0 * (x[3] ** 2 + x[4] ** 2) + x[5] ** 2

    def corridor(m: Maths, x: Vector) -> Vector:
        return m.stack((x[1] - 2.0) / 2.0, (-2.0 - x[1]) / 2.0)

    limits = (Limit("circles", outside_circles(circles)), Limit("corridor", corridor))
    bounds = (0.0, 0.0), (2.0 * hover, 2.0 * hover)
    return Reference("quadrotor", 60, *bounds, (0.0,) * 6, dynamics, stage, terminal, limits)


REFERENCES: dict[str, Reference] = {make.__name__: make() for make in (pendulum, cartpole, rendezvous, car, quadrotor)}
