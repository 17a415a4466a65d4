"""Problems of oscillators, servos, a chemical reactor and a crane."""

from typing import Any

from benchmarks.formulas import Limit, Maths, Reference, Vector
from envs.physics import rk4


def minimum_fuel() -> Reference:
    """Returns the transfer of a double integrator to rest at the origin at minimal fuel.

    Athans & Falb 1966, Optimal Control, ch. 8: the optimum is bang - coast - bang. State (p, v); action |u| <= 1; H = 100
    steps of 0.05 (exact) from (1, 0.5).

        p' = p + 0.05 v + 0.00125 u,   v' = v + 0.05 u
        stage = 0.05 (sqrt(u² + w²) - w),  w = 0.02   (the fuel |u|, smoothed),      terminal = 0

    Limit: the state is zero at t = H.
    """
    dt, width = 0.05, 0.02

    def dynamics(m: Maths, x: Vector, u: Vector) -> Vector:
        return m.stack(x[0] + dt * x[1] + 0.5 * dt**2 * u[0], x[1] + dt * u[0])

    def stage(m: Maths, x: Vector, u: Vector) -> Any:
        return dt * (m.sqrt(u[0] ** 2 + width**2) - width)

    def terminal(m: Maths, x: Vector) -> Any:
        return 0.0 * x[0]

    limits = (Limit("at rest", lambda m, x: m.stack(x[0], x[1]), 100, equality=True),)
    return Reference("minimum_fuel", 100, (-1.0,), (1.0,), (1.0, 0.5), dynamics, stage, terminal, limits)


def van_der_pol() -> Reference:
    """Returns a Van der Pol oscillator that is brought to rest.

    Vassiliadis, Sargent & Pantelides 1994 (with a limit on the state), here with a terminal equality. State (x, y); action
    |u| <= 1; H = 50 steps of 0.2 (RK4) from (0, 1).

        ẋ = (1 - y²) x - y + u,   ẏ = x
        stage = 0.2 (x² + y² + u²),   terminal = 0

    Limits: x >= -0.25 at all steps; the state is zero at t = H.
    """

    def dynamics(m: Maths, x: Vector, u: Vector) -> Vector:
        def derivative(x: Vector, u: Vector) -> Vector:
            return m.stack((1.0 - x[1] ** 2) * x[0] - x[1] + u[0], x[0])

        return rk4(derivative, x, u, 0.2)

    def stage(m: Maths, x: Vector, u: Vector) -> Any:
        return 0.2 * (x[0] ** 2 + x[1] ** 2 + u[0] ** 2)

    def terminal(m: Maths, x: Vector) -> Any:
        return 0.0 * x[0]

    limits = (
        Limit("slow", lambda m, x: m.stack(-0.25 - x[0])),
        Limit("at rest", lambda m, x: m.stack(x[0], x[1]), 50, equality=True),
    )
    return Reference("van_der_pol", 50, (-1.0,), (1.0,), (0.0, 1.0), dynamics, stage, terminal, limits)


def reactor() -> Reference:
    """Returns a stirred-tank reactor that ignites and settles at its unstable operating point, in SI units.

    Model and figures of Henson & Seborg 1997, Nonlinear Process Control: an exothermic reaction A → B with a cooling jacket.
    State (c mol/m³, T K); action: coolant temperature, 280 … 370 K; H = 60 steps of 3 s from a cold state
    (700, 335).

        ċ = (q/V)(c_f - c) - k c,   Ṫ = (q/V)(T_f - T) + h k c + b (u - T),   k = k_0 exp(-8750/T)
        q/V = 1/60 s⁻¹,  c_f = 1000,  T_f = 350,  k_0 = 1.2·10⁹ s⁻¹,  h = 0.2092 K m³/mol,  b = 0.03487 s⁻¹
        stage = 10⁻⁴ (c - 500)² + 0.1 (T - 350)² + 0.01 (u - 300)²,   terminal = 10⁻² (c - 500)² + 10 (T - 350)²

    A runaway reaction is stiff: k exceeds 10 s⁻¹ above 470 K. A step is six steps of 0.5 s of a linearly implicit Euler
    method: k is that of the old temperature, all else is implicit, so a runaway stays bounded.
    """

    def dynamics(m: Maths, x: Vector, u: Vector) -> Vector:
        dt, flow, cooling = 0.5, 1.0 / 60.0, 0.03487
        concentration, temperature = x[0], x[1]
        for _ in range(6):
            rate = 1.2e9 * m.exp(-8750.0 / temperature)
            concentration = (concentration + dt * flow * 1000.0) / (1.0 + dt * (flow + rate))
            heat = flow * 350.0 + 0.2092 * rate * concentration + cooling * u[0]
            temperature = (temperature + dt * heat) / (1.0 + dt * (flow + cooling))
        return m.stack(concentration, temperature)

    def stage(m: Maths, x: Vector, u: Vector) -> Any:
        return 1e-4 * (x[0] - 500.0) ** 2 + 0.1 * (x[1] - 350.0) ** 2 + 0.01 * (u[0] - 300.0) ** 2

    def terminal(m: Maths, x: Vector) -> Any:
        return 1e-2 * (x[0] - 500.0) ** 2 + 10.0 * (x[1] - 350.0) ** 2

    return Reference("reactor", 60, (280.0,), (370.0,), (700.0, 335.0), dynamics, stage, terminal)


def rate_limited() -> Reference:
    """Returns the tracking of a sine by a servo with a limited rate of its action; a convex quadratic program.

    The sine is the state of an oscillator (Francis & Wonham 1976), and the last action and its change are states, as in
    linear predictive control (Maciejowski 2002, Predictive Control with Constraints, ch. 2). State (p, v, r, s, a, d):
    position, speed, reference and its quadrature, last action, its change; |u| <= 2; H = 60 steps of 0.1 s (semi-implicit)
    from (1, 0, 0, 1, 0, 0).

        v' = v + 0.1 (2u - 0.4 v),   p' = p + 0.1 v',   a' = u,   d' = u - a
        (r', s') = rotation of (r, s) by 0.2 rad
        stage = (p - r)² + 0.001 u²,   terminal = 10 (p - r)²

    Limits: |d| <= 0.12, divided by 0.12; |v| <= 1.2, divided by 1.2.
    """
    rate, fastest = 0.12, 1.2

    def dynamics(m: Maths, x: Vector, u: Vector) -> Vector:
        speed = x[1] + 0.1 * (2.0 * u[0] - 0.4 * x[1])
        cos, sin = 0.9800665778412416, 0.19866933079506122  # of 0.2 rad
        reference, quadrature = cos * x[2] + sin * x[3], cos * x[3] - sin * x[2]
        return m.stack(x[0] + 0.1 * speed, speed, reference, quadrature, u[0], u[0] - x[4])

    def stage(m: Maths, x: Vector, u: Vector) -> Any:
        return (x[0] - x[2]) ** 2 + 0.001 * u[0] ** 2

    def terminal(m: Maths, x: Vector) -> Any:
        return 10.0 * (x[0] - x[2]) ** 2

    limits = (
        Limit("rate", lambda m, x: m.stack(x[5] / rate - 1.0, -x[5] / rate - 1.0)),
        Limit("speed", lambda m, x: m.stack(x[1] / fastest - 1.0, -x[1] / fastest - 1.0)),
    )
    start = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)
    return Reference("rate_limited", 60, (-2.0,), (2.0,), start, dynamics, stage, terminal, limits)


def crane() -> Reference:
    """Returns a container crane that moves a load with little swing.

    Sakawa & Shindo 1982, with the figures of that paper: a trolley and a hoist. State (trolley m, rope m, swing rad, and
    their rates); action: accelerations of the trolley and of the hoist drive, |u_1| <= 2.83374, -0.80865 <= u_2 <=
    0.71265; H = 60 steps of 0.15 s (RK4) from (0, 22, 0, 0, -1, 0).

        ẍ_1 = u_1 + 17.2656 x_3,   ẍ_2 = u_2,   ẍ_3 = -(u_1 + 27.0756 x_3 + 2 ẋ_2 ẋ_3) / x_2
        stage = 0.075 (x_3² + ẋ_3²),   terminal = 0

    Limits: at t = H the state is (10, 14, 0, 2.5, 0, 0), lengths divided by 10 m; |ẋ_1| <= 2.5 and |ẋ_2| <= 1, divided by
    these. The action has no cost, so the optimum is weakly determined; its cost is only 0.005.
    """
    target, scale = (10.0, 14.0, 0.0, 2.5, 0.0, 0.0), (10.0, 10.0, 1.0, 1.0, 1.0, 1.0)

    def dynamics(m: Maths, x: Vector, u: Vector) -> Vector:
        def derivative(x: Vector, u: Vector) -> Vector:
            swing = -(u[0] + 27.0756 * x[2] + 2.0 * x[4] * x[5]) / x[1]
            return m.stack(x[3], x[4], x[5], u[0] + 17.2656 * x[2], u[1], swing)

        return rk4(derivative, x, u, 0.15)

    def stage(m: Maths, x: Vector, u: Vector) -> Any:
        return 0.075 * (x[2] ** 2 + x[5] ** 2)

    def terminal(m: Maths, x: Vector) -> Any:
        return 0.0 * x[0]

    def delivered(m: Maths, x: Vector) -> Vector:
        return m.stack(*((x[i] - target[i]) / scale[i] for i in range(6)))

    def speeds(m: Maths, x: Vector) -> Vector:
        return m.stack(x[3] / 2.5 - 1.0, -x[3] / 2.5 - 1.0, x[4] - 1.0, -x[4] - 1.0)

    limits = (Limit("speeds", speeds, last=59), Limit("delivered", delivered, 60, equality=True))
    bounds = (-2.83374, -0.80865), (2.83374, 0.71265)
    return Reference("crane", 60, *bounds, (0.0, 22.0, 0.0, 0.0, -1.0, 0.0), dynamics, stage, terminal, limits)
