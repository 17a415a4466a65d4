"""Problems of cars and wheeled robots: driving between obstacles, parking and a double lane change."""

from typing import Any

import numpy as np

from benchmarks.formulas import Limit, Maths, Reference, Vector, outside_circles
from envs.physics import rk4


def slalom() -> Reference:
    """Returns a car that starts at rest and drives diagonally across a field of round obstacles to a stop.

    Kinematic bicycle (Rajamani 2012, Vehicle Dynamics and Control, ch. 2; obstacle avoidance as in Zhang, Liniger & Borrelli
    2021). State (x m, y m, θ rad, v m/s); action (a m/s², δ rad), |a| <= 3, |δ| <= 0.5; H = 60 steps of 0.1 s (RK4) from
    (0, 0, π/4, 0); wheelbase L = 2.7 m; goal (14, 12).

        ẋ = v cos θ,  ẏ = v sin θ,  θ̇ = v tan δ / L,  v̇ = a
        stage = 0.01 |p - goal|² + 0.05 a² + 0.5 δ²,   terminal = 10 |p - goal|² + 5 v²

    Limits: outside the circles (x, y, r) below; 0 <= v <= 6, divided by 6.
    """
    wheelbase, goal = 2.7, (14.0, 12.0)
    circles = ((4.0, 3.2, 1.4), (7.5, 8.0, 1.6), (8.5, 5.0, 1.2), (11.5, 10.5, 1.2), (12.5, 7.5, 1.3))

    def dynamics(m: Maths, x: Vector, u: Vector) -> Vector:
        def derivative(x: Vector, u: Vector) -> Vector:
            return m.stack(x[3] * m.cos(x[2]), x[3] * m.sin(x[2]), x[3] * m.tan(u[1]) / wheelbase, u[0])

        return rk4(derivative, x, u, 0.1)

    def stage(m: Maths, x: Vector, u: Vector) -> Any:
        return 0.01 * ((x[0] - goal[0]) ** 2 + (x[1] - goal[1]) ** 2) + 0.05 * u[0] ** 2 + 0.5 * u[1] ** 2

    def terminal(m: Maths, x: Vector) -> Any:
        return 10.0 * ((x[0] - goal[0]) ** 2 + (x[1] - goal[1]) ** 2) + 5.0 * x[3] ** 2

    def speed(m: Maths, x: Vector) -> Vector:
        return m.stack((x[3] - 6.0) / 6.0, -x[3] / 6.0)

    limits = (Limit("circles", outside_circles(circles)), Limit("speed", speed))
    start = (0.0, 0.0, np.pi / 4.0, 0.0)
    return Reference("slalom", 60, (-3.0, -0.5), (3.0, 0.5), start, dynamics, stage, terminal, limits)


def parking() -> Reference:
    """Returns a unicycle that moves sideways into a parking space behind an obstacle.

    The nonholonomic integrator (Brockett 1983) in the form of a wheeled robot. State (x m, y m, θ rad); action (v m/s,
    ω rad/s), |v| <= 1, |ω| <= 2; H = 50 steps of 0.1 s (RK4) from (0, 1, 0).

        ẋ = v cos θ,  ẏ = v sin θ,  θ̇ = ω
        stage = 0.1 (v² + 0.2 ω²),   terminal = 0

    Limits: the state is zero at t = H; outside the circle (0.2, 0.5) of radius 0.2 m at all steps.
    """

    def dynamics(m: Maths, x: Vector, u: Vector) -> Vector:
        def derivative(x: Vector, u: Vector) -> Vector:
            return m.stack(u[0] * m.cos(x[2]), u[0] * m.sin(x[2]), u[1])

        return rk4(derivative, x, u, 0.1)

    def stage(m: Maths, x: Vector, u: Vector) -> Any:
        return 0.1 * (u[0] ** 2 + 0.2 * u[1] ** 2)

    def terminal(m: Maths, x: Vector) -> Any:
        return 0.0 * x[0]

    def parked(m: Maths, x: Vector) -> Vector:
        return m.stack(x[0], x[1], x[2])

    limits = (Limit("circle", outside_circles(((0.2, 0.5, 0.2),))), Limit("parked", parked, 50, equality=True))
    return Reference("parking", 50, (-1.0, -2.0), (1.0, 2.0), (0.0, 1.0, 0.0), dynamics, stage, terminal, limits)


def lane_change() -> Reference:
    """Returns a double lane change at constant speed close to the limit of adhesion.

    Single-track model with lateral dynamics (Rajamani 2012, ch. 2) and tyre forces that saturate at μ F_z; track of ISO
    3888-1. State (y m, ψ rad, v m/s, r rad/s, δ rad): lateral position, heading, lateral speed, yaw rate, steering angle;
    action: steering rate, |u| <= 0.8 rad/s; H = 62 steps of 0.1 s (RK4 in two parts) from zero. Speed V = 20 m/s, mass
    1500 kg, inertia 2500 kg m², axles 1.2 and 1.4 m from the centre of mass, cornering stiffness C = 8·10⁴ and 9·10⁴ N/rad,
    adhesion μ = 0.8.

        ẏ = V sin ψ + v cos ψ,  ψ̇ = r,  v̇ = (F_f + F_r)/m - V r,  ṙ = (a F_f - b F_r)/I,  δ̇ = u
        F = C α / sqrt(1 + (C α / (μ F_z))²),   α_f = δ - (v + a r)/V,  α_r = -(v - b r)/V
        stage = 0.1 u² + 0.5 r² + 0.05 (F_f + F_r)²/(m² 10) + 5 δ²,   terminal = ψ² + v² + r²

    Limits: |δ| <= 0.35, divided by 0.35; lateral position within 0.35 m of 0 in the first lane (the steps 1 … 7), within 0.5
    m of 3.5 m in the second (23 … 35), within 0.6 m of 0 in the third (48 … 62).
    """
    speed, mass, inertia, front, rear, adhesion = 20.0, 1500.0, 2500.0, 1.2, 1.4, 0.8
    weight = mass * 9.81 / (front + rear)
    grip = (adhesion * weight * rear, adhesion * weight * front)

    def forces(m: Maths, x: Vector) -> tuple[Any, Any]:
        def saturated(force: Any, limit: float) -> Any:
            return force / m.sqrt(1.0 + (force / limit) ** 2)

        ahead = 8e4 * (x[4] - (x[2] + front * x[3]) / speed)
        behind = -9e4 * (x[2] - rear * x[3]) / speed
        return saturated(ahead, grip[0]), saturated(behind, grip[1])

    def dynamics(m: Maths, x: Vector, u: Vector) -> Vector:
        def derivative(x: Vector, u: Vector) -> Vector:
            ahead, behind = forces(m, x)
            sideways = (ahead + behind) / mass - speed * x[3]
            turn = (front * ahead - rear * behind) / inertia
            return m.stack(speed * m.sin(x[1]) + x[2] * m.cos(x[1]), x[3], sideways, turn, u[0])

        return rk4(derivative, rk4(derivative, x, u, 0.05), u, 0.05)

    def stage(m: Maths, x: Vector, u: Vector) -> Any:
        ahead, behind = forces(m, x)
        return 0.1 * u[0] ** 2 + 0.5 * x[3] ** 2 + 0.005 * ((ahead + behind) / mass) ** 2 + 5.0 * x[4] ** 2

    def terminal(m: Maths, x: Vector) -> Any:
        return x[1] ** 2 + x[2] ** 2 + x[3] ** 2

    def lane(name: str, centre: float, width: float, first: int, last: int) -> Limit:
        return Limit(name, lambda m, x: m.stack(x[0] - centre - width, centre - width - x[0]), first, last=last)

    def steering(m: Maths, x: Vector) -> Vector:
        return m.stack(x[4] / 0.35 - 1.0, -x[4] / 0.35 - 1.0)

    lanes = (lane("lane 1", 0.0, 0.35, 1, 7), lane("lane 2", 3.5, 0.5, 23, 35), lane("lane 3", 0.0, 0.6, 48, 62))
    limits = (Limit("steering", steering), *lanes)
    return Reference("lane_change", 62, (-0.8,), (0.8,), (0.0,) * 5, dynamics, stage, terminal, limits)
