"""Crossing: a car drives down a street among pedestrians and cars whose decisions are unpredictable.

Pedestrians wait at the kerbs. Other cars drive in the neighbouring lane. Each of these agents makes one decision when the
controlled car is near: a pedestrian crosses the street or walks away, a car cuts in or pulls over. Both outcomes are
equally likely and mirror images of each other. The mean of the futures is therefore a future in which nobody is ever in
the way. A planner that drives at full speed by the mean arrives in about one run of ten. A planner that keeps the futures
apart slows down near undecided agents and arrives.

State (`State`): the controlled car (x m, y m, θ rad, v m/s), positions and velocities of the other agents, and their
decisions (0: undecided, 1: into the path of the car, -1: away from it). The car is the kinematic bicycle of `car`, with
speeds in [0, 10] m/s. Observation: (x / 80 m, y, cos θ, sin θ, v / 10 m/s), then per agent (position relative to the car
/ 10 m, velocity / 10 m/s, 1 if decided). Action: (acceleration m/s², steering rad), within ±4 and ±0.3.

A latent variable z holds the randomness: one standard normal number per agent and step (`advance`). An undecided agent
between 4 m behind and 12 m ahead of the car decides if |z| > 1, by the sign of z. The mean z = 0 is the average future.

    reward = Δx / 80 m - Δt / 20 s + 1 for success - 5 for a crash

A crash is contact with an agent or with the kerb. Success is reaching x = 80. Both end the episode. An episode has at most
300 steps of 0.1 s.

Source: LeCun 2022, "A Path Towards Autonomous Machine Intelligence", motivates latent variables by this example.
"""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt8

from envs import car
from envs import drawing as d
from envs.exploring import Trajectories, walk
from envs.task import Bounds, Task, bounds

PARAMS = {"wheelbase": 2.5, "dt": 0.1, "walk": 2.2, "turn": 1.5, "cruise": 4.0}
"""Wheelbase (m), step (s); speeds in m/s of walking pedestrians, of cars changing lane, and of cars along the lane."""
LENGTH, LANE = 80.0, 1.75
"""Length of the street, and distance of each lane's centre from the centre line; m."""
KERB = 2 * LANE
"""Distance of each kerb from the centre line, m."""
MAX_SPEED, MAX_ACCELERATION, MAX_STEERING = 10.0, 4.0, 0.3
"""m/s, m/s², rad."""
HALF = (2.1, 0.9)
"""m: half of a car's length and width."""
PEDESTRIANS, CARS = 4, 2
"""Numbers of other agents; pedestrians come first in every array."""
OTHERS = PEDESTRIANS + CARS
NOTICE = (-4.0, 12.0)
"""Range of positions relative to the car, along the street, in which agents decide; m."""
_IS_PEDESTRIAN = np.arange(OTHERS) < PEDESTRIANS
_RADIUS = np.where(_IS_PEDESTRIAN, 0.35, 0.9).astype(np.float32)  # a pedestrian is one disc, a car is two discs
_AXLE = np.where(_IS_PEDESTRIAN, 0.0, 1.2).astype(np.float32)  # half the distance between the two discs
OPTIONS: dict[str, Bounds] = {"state": bounds([0.0, -2.6, -1.0, 0.0], [LENGTH, 2.6, 1.0, MAX_SPEED])}
"""Options of `reset` and their bounds: the state of the controlled car."""


class State(NamedTuple):
    """The controlled car and N other agents."""

    car: Float[Array, "*b 4"]
    home: Float[Array, "*b N"]
    """y of each agent before its decision."""
    place: Float[Array, "*b N 2"]
    velocity: Float[Array, "*b N 2"]
    decided: Float[Array, "*b N"]
    """0: undecided, 1: into the path of the car, -1: away from it."""


def advance(params: Any, state: State, action: Float[Array, "2"], latent: Float[Array, " N"]) -> State:
    """Returns the next state for a given value of the latent variable.

    Args:
        params: As `PARAMS`.
        state: Current state.
        action: `(acceleration, steering)`; clipped to their bounds.
        latent: One number per agent, standard normal in the true dynamics.
    """
    limit = np.array([MAX_ACCELERATION, MAX_STEERING], np.float32)
    ours = car.dynamics(params, state.car, jnp.clip(action, -limit, limit))
    ours = ours.at[3].set(jnp.clip(ours[3], 0.0, MAX_SPEED))
    ahead = state.place[:, 0] - state.car[0]
    decides = (state.decided == 0.0) & (ahead > NOTICE[0]) & (ahead < NOTICE[1]) & (jnp.abs(latent) > 1.0)
    decided = jnp.where(decides, jnp.sign(latent), state.decided)
    # 1: to the opposite kerb, or into the lane of the car; -1: the same distance in the other direction
    reach = np.where(_IS_PEDESTRIAN, 2.0, 0.0) * state.home + np.where(_IS_PEDESTRIAN, 0.0, 2.0 * LANE)
    gap = state.home - decided * reach - state.place[:, 1]
    fastest = jnp.where(_IS_PEDESTRIAN, params["walk"], params["turn"])
    sideways = jnp.clip(gap / params["dt"], -fastest, fastest)
    velocity = jnp.stack([jnp.where(_IS_PEDESTRIAN, 0.0, params["cruise"]), sideways], axis=1)
    return State(ours, state.home, state.place + velocity * params["dt"], velocity, decided)


def step(params: Any, state: State, action: Float[Array, "2"], key: PRNGKeyArray) -> State:
    """Returns the next state for a random value of the latent variable."""
    return advance(params, state, action, jax.random.normal(key, (OTHERS,)))


def reset(key: PRNGKeyArray, state: Float[Array, "4"] | None = None) -> State:
    """Returns a start: the car at the near end at 6 m/s or in `state`, the other agents along the street."""
    draws = jax.random.uniform(key, (OTHERS + PEDESTRIANS,), minval=-1.0)
    slots = np.concatenate([18.0 + 14.0 * np.arange(PEDESTRIANS), 12.0 + 22.0 * np.arange(CARS)]).astype(np.float32)
    along = slots + 4.0 * draws[:OTHERS]
    side = jnp.sign(draws[OTHERS:])
    home = jnp.concatenate([side * (KERB + 0.6), jnp.full(CARS, LANE)])
    place = jnp.stack([along, home], axis=1)
    velocity = jnp.stack([jnp.where(_IS_PEDESTRIAN, 0.0, PARAMS["cruise"]), jnp.zeros(OTHERS)], axis=1)
    ours = jnp.array([0.0, -LANE, 0.0, 6.0]) if state is None else state
    return State(ours, home, place, velocity, jnp.zeros(OTHERS))


def clearance(state: State) -> Float[Array, ""]:
    """Returns the distance in m from the outline of the car to the nearest agent; negative if they overlap."""
    cos, sin = jnp.cos(state.car[2]), jnp.sin(state.car[2])

    def gap(axle: np.ndarray) -> Array:
        dx, dy = state.place[:, 0] + axle - state.car[0], state.place[:, 1] - state.car[1]
        beyond = jnp.stack([jnp.abs(cos * dx + sin * dy) - HALF[0], jnp.abs(cos * dy - sin * dx) - HALF[1]])
        outside = jnp.sqrt((jnp.maximum(beyond, 0.0) ** 2).sum(axis=0) + 1e-12)
        return outside + jnp.minimum(beyond.max(axis=0), 0.0) - _RADIUS

    return jnp.minimum(gap(_AXLE), gap(-_AXLE)).min()


def crashed(state: State) -> Bool[Array, ""]:
    """Returns True if the car touches an agent or the kerb."""
    return (clearance(state) < 0.0) | (jnp.abs(state.car[1]) > KERB - HALF[1])


def success(state: State) -> Bool[Array, ""]:
    """Returns True if the car has reached the end of the street without a crash."""
    return (state.car[0] >= LENGTH) & ~crashed(state)


def reward(params: Any, state: State, action: Float[Array, "2"], following: State) -> Float[Array, ""]:
    """Returns progress minus time, plus 1 for success, minus 5 for a crash."""
    progress = (following.car[0] - state.car[0]) / LENGTH - params["dt"] / 20.0
    return progress + 1.0 * success(following) - 5.0 * crashed(following)


def observe(state: State) -> Float[Array, "35"]:
    """Returns the observation: the car, then the other agents relative to it."""
    x, y, angle, speed = state.car
    ours = jnp.stack([x / LENGTH, y, jnp.cos(angle), jnp.sin(angle), speed / MAX_SPEED])
    others = jnp.concatenate(
        [(state.place - state.car[:2]) / 10.0, state.velocity / 10.0, jnp.abs(state.decided)[:, None]], axis=1
    )
    return jnp.concatenate([ours, others.ravel()])


def read(observation: Float[Array, "35"]) -> State:
    """Returns a state that matches an observation.

    Two parts are not observed: `home` is set to the current y, and decided agents are set to 1 (into the path of the car).
    """
    x, y, cos, sin, speed = observation[:5]
    x = x * LENGTH
    others = observation[5:].reshape(OTHERS, 5)
    place = 10.0 * others[:, :2] + jnp.stack([x, y])
    ours = jnp.stack([x, y, jnp.arctan2(sin, cos), MAX_SPEED * speed])
    return State(ours, place[:, 1], place, 10.0 * others[:, 2:4], others[:, 4])


def report(state: State) -> dict[str, Array]:
    """Returns the fraction of the street behind the car, its clearance in m, and the crash flag."""
    return {"progress": state.car[0] / LENGTH, "clearance": clearance(state), "crashed": crashed(state)}


def render(state: State) -> UInt8[Array, "180 400 3"]:
    """Returns an image of the street from above, centred on the car; undecided agents are yellow."""
    fixed = d.view((-9.0, -9.0), (31.0, 9.0), 400)
    camera = d.moved(fixed, jnp.stack([state.car[0], 0.0]))
    across = jnp.abs(fixed.y) + 0.0 * fixed.x
    canvas = d.paint(d.blank(fixed, d.PAPER), d.soften(across - KERB - 2.2, fixed.pixel), d.MIST)
    canvas = d.paint(canvas, d.soften(across - KERB - 0.15, fixed.pixel), d.STONE)
    canvas = d.paint(canvas, d.soften(across - KERB, fixed.pixel), d.ASPHALT)
    dash = d.soften(jnp.abs(jnp.mod(camera.x, 4.0) - 2.0) - 0.9, camera.pixel)
    canvas = d.paint(canvas, 0.8 * dash * d.soften(across - 0.07, fixed.pixel), d.PAPER)
    end = d.soften(jnp.abs(camera.x - LENGTH) - 0.4, camera.pixel) * d.soften(across - KERB, fixed.pixel)
    canvas = d.paint(canvas, end, d.TEAL)
    for i in range(OTHERS):
        colour = jnp.where(state.decided[i] == 0.0, jnp.array(d.SAND), jnp.array(d.STONE if _IS_PEDESTRIAN[i] else d.SKY))
        if _IS_PEDESTRIAN[i]:
            shadow = d.disc(camera, state.place[i] + jnp.array([0.12, -0.15]), 0.5, blur=0.2)
            canvas = d.paint(d.paint(canvas, 0.3 * shadow, d.INK), d.disc(camera, state.place[i], 0.5), colour)
            canvas = d.paint(canvas, d.disc(camera, state.place[i], 0.22), d.INK)
        else:
            angle = jnp.arctan2(state.velocity[i, 1], jnp.maximum(state.velocity[i, 0], 1.0))
            canvas = car.draw_car(camera, canvas, state.place[i], angle, HALF, colour)
    return d.picture(car.draw_car(camera, canvas, state.car[:2], state.car[2], HALF, d.CORAL))


def steer(state: State, lane: Float[Array, ""] | float, speed: Float[Array, ""] | float) -> Float[Array, "2"]:
    """Returns the action of a feedback law that tracks a lane (y in m) and a speed (m/s)."""
    turn = -0.15 * (state.car[1] - lane) - 0.8 * state.car[2]
    return jnp.stack([4.0 * (speed - state.car[3]), turn])


def explore(key: PRNGKeyArray, batch: int, length: int = 91) -> Trajectories:
    """Returns trajectories of an exploring driver that changes its target lane and speed about once a second.

    Start positions cover the street; target speeds include 0. The driver ignores the other agents and continues after a
    crash.

    Args:
        key: Consumed.
        batch: Trajectories B.
        length: Steps L.

    Returns:
        States `[B, L+1]` and actions `[B, L, 2]`.
    """
    start_key, car_key, target_key, noise_key, step_key = jax.random.split(key, 5)
    low, high = OPTIONS["state"]
    cars = low + (high - low) * jax.random.uniform(car_key, (batch, 4)) * np.array([0.8, 1.0, 1.0, 1.0], np.float32)
    states = jax.vmap(lambda key, car: reset(key, car * jnp.array([1.0, 1.0, 0.2, 1.0])))(
        jax.random.split(start_key, batch), cars
    )
    targets = jax.random.uniform(target_key, (batch, length, 3))
    noises = jax.random.normal(noise_key, (batch, length, 2)) * np.array([1.5, 0.06], np.float32)

    def one(state: State, targets: Array, noises: Array, keys: Array) -> Trajectories:
        def advance(carry: tuple[State, Array, Array], drawn: tuple[Array, Array, Array]):
            (state, lane, speed), (target, noise, key) = carry, drawn
            change = target[0] < 0.1
            lane = jnp.where(change, -2.4 + 3.6 * target[1], lane)
            speed = jnp.where(change, MAX_SPEED * jnp.clip(1.5 * target[2] - 0.25, 0.0, 1.0), speed)
            limit = np.array([MAX_ACCELERATION, MAX_STEERING], np.float32)
            action = jnp.clip(steer(state, lane, speed) + noise, -limit, limit)
            following = step(PARAMS, state, action, key)
            return (following, lane, speed), (following, action)

        return walk(advance, (state, jnp.float32(-LANE), state.car[3]), state, (targets, noises, keys))

    return jax.vmap(one)(states, targets, noises, jax.random.split(step_key, (batch, length)))


@cache
def task() -> Task:
    """Returns the task; it has no settings."""
    ours = [0.0, -KERB, -1.0, -1.0, 0.0], [1.1, KERB, 1.0, 1.0, 1.0]
    other = [-20.0, -3.0, -1.0, -1.0, 0.0], [20.0, 3.0, 1.0, 1.0, 1.0]
    return Task(
        name="crossing",
        params=PARAMS,
        reset=reset,
        step=step,
        observe=observe,
        reward=reward,
        render=render,
        actions=bounds([-MAX_ACCELERATION, -MAX_STEERING], [MAX_ACCELERATION, MAX_STEERING]),
        observations=bounds(ours[0] + OTHERS * other[0], ours[1] + OTHERS * other[1]),
        horizon=300,
        fps=10,
        success=success,
        terminated=lambda state: crashed(state) | (state.car[0] >= LENGTH),
        report=report,
        options=OPTIONS,
        possible=lambda state: {"state": ~crashed(state)},
    )
