"""Crossing: drive down a street on which others have not made up their minds, quickly, and hit no one.

Pedestrians wait at the kerbs, cars go ahead in the neighbouring lane. When our car comes near, each of them decides, and
nothing beforehand tells what: a pedestrian crosses the street or walks off, a car cuts in or pulls off into a bay. Both are
equally likely and mirror images of one another, so that *on average all stay where they are*: the mean of the futures is
one in which nobody is ever in the way, and who believes it and drives at full speed arrives in about one run of ten. Who
keeps the futures apart slows down where somebody may step out, and arrives.

State: our car (x m, y m, θ rad, v m/s), a kinematic bicycle as in `car` that never reverses nor exceeds 10 m/s; places and
velocities of the others; what they decided (0: nothing yet, 1: into our way, -1: out of it) (`State`). Observation: (x / 80
m, y, cos θ, sin θ, v / 10 m/s), then for each of the others (place relative to ours / 10 m, velocity / 10 m/s, whether it
has decided). Action: (acceleration m/s², steering rad), within ±4 and ±0.3.

What is not determined is a latent variable z with one standard normal number for everybody and step (`advance`): whoever is
undecided with our car between 12 m before and 4 m past decides if |z| > 1, by the sign of z. z = 0, its mean, is the
average future.

    reward = Δx / 80 m - Δt / 20 s + 1 for arriving - 5 for a crash

A crash is touching somebody, or the kerb; it ends the episode. So does arriving at x = 80: success. An episode has 300
steps of 0.1 s.

Source: the example by which LeCun 2022, "A Path Towards Autonomous Machine Intelligence", motivates latent variables.
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
"""m, s; speeds in m/s: of pedestrians, of cars sideways, of cars ahead."""
LENGTH, LANE = 80.0, 1.75
"""m: of the street, and from its middle to that of either lane."""
KERB = 2 * LANE
"""m from the middle."""
MAX_SPEED, MAX_ACCELERATION, MAX_STEERING = 10.0, 4.0, 0.3
"""m/s, m/s², rad."""
HALF = (2.1, 0.9)
"""m: half of a car's length and width."""
PEDESTRIANS, CARS = 4, 2
"""How many others there are; pedestrians come first."""
OTHERS = PEDESTRIANS + CARS
NOTICE = (-4.0, 12.0)
"""m ahead of our car, between which others decide."""
_WALKS = np.arange(OTHERS) < PEDESTRIANS
_RADIUS = np.where(_WALKS, 0.35, 0.9).astype(np.float32)  # a pedestrian is a disc, a car two of them
_AXLE = np.where(_WALKS, 0.0, 1.2).astype(np.float32)  # half the distance between the two
OPTIONS: dict[str, Bounds] = {"state": bounds([0.0, -2.6, -1.0, 0.0], [LENGTH, 2.6, 1.0, MAX_SPEED])}
"""What a start can be given: that of our car."""


class State(NamedTuple):
    """Everybody on the street, N others among them."""

    car: Float[Array, "*b 4"]
    home: Float[Array, "*b N"]
    """y at which they wait."""
    place: Float[Array, "*b N 2"]
    velocity: Float[Array, "*b N 2"]
    decided: Float[Array, "*b N"]
    """0: nothing yet, 1: into our way, -1: out of it."""


def advance(params: Any, state: State, action: Float[Array, "2"], latent: Float[Array, " N"]) -> State:
    """One step, given what is not determined.

    Args:
        params: As `PARAMS`.
        state: Everybody now.
        action: `(acceleration, steering)`; clipped to their bounds.
        latent: A standard normal number for each of the others.
    """
    limit = np.array([MAX_ACCELERATION, MAX_STEERING], np.float32)
    ours = car.dynamics(params, state.car, jnp.clip(action, -limit, limit))
    ours = ours.at[3].set(jnp.clip(ours[3], 0.0, MAX_SPEED))
    ahead = state.place[:, 0] - state.car[0]
    decides = (state.decided == 0.0) & (ahead > NOTICE[0]) & (ahead < NOTICE[1]) & (jnp.abs(latent) > 1.0)
    decided = jnp.where(decides, jnp.sign(latent), state.decided)
    # into our way: over to the other kerb, or to our lane; out of it: as far the other way
    reach = np.where(_WALKS, 2.0, 0.0) * state.home + np.where(_WALKS, 0.0, 2.0 * LANE)
    gap = state.home - decided * reach - state.place[:, 1]
    fastest = jnp.where(_WALKS, params["walk"], params["turn"])
    sideways = jnp.clip(gap / params["dt"], -fastest, fastest)
    velocity = jnp.stack([jnp.where(_WALKS, 0.0, params["cruise"]), sideways], axis=1)
    return State(ours, state.home, state.place + velocity * params["dt"], velocity, decided)


def step(params: Any, state: State, action: Float[Array, "2"], key: PRNGKeyArray) -> State:
    """One step, what is not determined drawn."""
    return advance(params, state, action, jax.random.normal(key, (OTHERS,)))


def reset(key: PRNGKeyArray, state: Float[Array, "4"] | None = None) -> State:
    """Our car at the near end at 6 m/s, the others somewhere along the street; `state` is that of our car."""
    draws = jax.random.uniform(key, (OTHERS + PEDESTRIANS,), minval=-1.0)
    slots = np.concatenate([18.0 + 14.0 * np.arange(PEDESTRIANS), 12.0 + 22.0 * np.arange(CARS)]).astype(np.float32)
    along = slots + 4.0 * draws[:OTHERS]
    side = jnp.sign(draws[OTHERS:])
    home = jnp.concatenate([side * (KERB + 0.6), jnp.full(CARS, LANE)])
    place = jnp.stack([along, home], axis=1)
    velocity = jnp.stack([jnp.where(_WALKS, 0.0, PARAMS["cruise"]), jnp.zeros(OTHERS)], axis=1)
    ours = jnp.array([0.0, -LANE, 0.0, 6.0]) if state is None else state
    return State(ours, home, place, velocity, jnp.zeros(OTHERS))


def clearance(state: State) -> Float[Array, ""]:
    """Distance in m from the outline of our car to the nearest of the others; negative when they touch."""
    cos, sin = jnp.cos(state.car[2]), jnp.sin(state.car[2])

    def gap(axle: np.ndarray) -> Array:
        dx, dy = state.place[:, 0] + axle - state.car[0], state.place[:, 1] - state.car[1]
        beyond = jnp.stack([jnp.abs(cos * dx + sin * dy) - HALF[0], jnp.abs(cos * dy - sin * dx) - HALF[1]])
        outside = jnp.sqrt((jnp.maximum(beyond, 0.0) ** 2).sum(axis=0) + 1e-12)
        return outside + jnp.minimum(beyond.max(axis=0), 0.0) - _RADIUS

    return jnp.minimum(gap(_AXLE), gap(-_AXLE)).min()


def crashed(state: State) -> Bool[Array, ""]:
    """Whether our car touches somebody, or the kerb."""
    return (clearance(state) < 0.0) | (jnp.abs(state.car[1]) > KERB - HALF[1])


def success(state: State) -> Bool[Array, ""]:
    """Whether our car has arrived, and whole."""
    return (state.car[0] >= LENGTH) & ~crashed(state)


def reward(params: Any, state: State, action: Float[Array, "2"], following: State) -> Float[Array, ""]:
    """Progress, minus time, and how it ended."""
    progress = (following.car[0] - state.car[0]) / LENGTH - params["dt"] / 20.0
    return progress + 1.0 * success(following) - 5.0 * crashed(following)


def observe(state: State) -> Float[Array, "35"]:
    """Our car, then the others relative to it."""
    x, y, angle, speed = state.car
    ours = jnp.stack([x / LENGTH, y, jnp.cos(angle), jnp.sin(angle), speed / MAX_SPEED])
    others = jnp.concatenate(
        [(state.place - state.car[:2]) / 10.0, state.velocity / 10.0, jnp.abs(state.decided)[:, None]], axis=1
    )
    return jnp.concatenate([ours, others.ravel()])


def read(observation: Float[Array, "35"]) -> State:
    """The state behind an observation, but for where the others wait, which is taken to be where they are, and which way
    they decided, which is taken to be into our way."""
    x, y, cos, sin, speed = observation[:5]
    x = x * LENGTH
    others = observation[5:].reshape(OTHERS, 5)
    place = 10.0 * others[:, :2] + jnp.stack([x, y])
    ours = jnp.stack([x, y, jnp.arctan2(sin, cos), MAX_SPEED * speed])
    return State(ours, place[:, 1], place, 10.0 * others[:, 2:4], others[:, 4])


def report(state: State) -> dict[str, Array]:
    """How far it has come, the room there is around it, and whether it crashed."""
    return {"progress": state.car[0] / LENGTH, "clearance": clearance(state), "crashed": crashed(state)}


def render(state: State) -> UInt8[Array, "180 400 3"]:
    """The street from above, moving with our car; those who have not decided are yellow, all others move on in grey."""
    still = d.view((-9.0, -9.0), (31.0, 9.0), 400)
    seen = d.moved(still, jnp.stack([state.car[0], 0.0]))
    across = jnp.abs(still.y) + 0.0 * still.x
    canvas = d.paint(d.blank(still, d.PAPER), d.soften(across - KERB - 2.2, still.pixel), d.MIST)
    canvas = d.paint(canvas, d.soften(across - KERB - 0.15, still.pixel), d.STONE)
    canvas = d.paint(canvas, d.soften(across - KERB, still.pixel), d.ASPHALT)
    dash = d.soften(jnp.abs(jnp.mod(seen.x, 4.0) - 2.0) - 0.9, seen.pixel)
    canvas = d.paint(canvas, 0.8 * dash * d.soften(across - 0.07, still.pixel), d.PAPER)
    end = d.soften(jnp.abs(seen.x - LENGTH) - 0.4, seen.pixel) * d.soften(across - KERB, still.pixel)
    canvas = d.paint(canvas, end, d.TEAL)
    for i in range(OTHERS):
        colour = jnp.where(state.decided[i] == 0.0, jnp.array(d.SAND), jnp.array(d.STONE if _WALKS[i] else d.SKY))
        if _WALKS[i]:
            shadow = d.disc(seen, state.place[i] + jnp.array([0.12, -0.15]), 0.5, blur=0.2)
            canvas = d.paint(d.paint(canvas, 0.3 * shadow, d.INK), d.disc(seen, state.place[i], 0.5), colour)
            canvas = d.paint(canvas, d.disc(seen, state.place[i], 0.22), d.INK)
        else:
            angle = jnp.arctan2(state.velocity[i, 1], jnp.maximum(state.velocity[i, 0], 1.0))
            canvas = car.draw_car(seen, canvas, state.place[i], angle, HALF, colour)
    return d.picture(car.draw_car(seen, canvas, state.car[:2], state.car[2], HALF, d.CORAL))


def steer(state: State, lane: Float[Array, ""] | float, speed: Float[Array, ""] | float) -> Float[Array, "2"]:
    """What takes our car to a lane (y in m) and to a speed in m/s."""
    turn = -0.15 * (state.car[1] - lane) - 0.8 * state.car[2]
    return jnp.stack([4.0 * (speed - state.car[3]), turn])


def explore(key: PRNGKeyArray, batch: int, length: int = 91) -> Trajectories:
    """Trajectories of drivers who change their minds every second or so: about lane and speed, standing still among them.

    They begin anywhere along the street, heed nobody, and go on after a crash, of which nobody takes notice.

    Args:
        key: Consumed.
        batch: Trajectories B.
        length: Steps L.

    Returns:
        States `[B, L+1]` and actions `[B, L, 2]`.
    """
    starting, placing, minding, shaking, deciding = jax.random.split(key, 5)
    low, high = OPTIONS["state"]
    cars = low + (high - low) * jax.random.uniform(placing, (batch, 4)) * np.array([0.8, 1.0, 1.0, 1.0], np.float32)
    states = jax.vmap(lambda key, car: reset(key, car * jnp.array([1.0, 1.0, 0.2, 1.0])))(
        jax.random.split(starting, batch), cars
    )
    minds = jax.random.uniform(minding, (batch, length, 3))
    shakes = jax.random.normal(shaking, (batch, length, 2)) * np.array([1.5, 0.06], np.float32)

    def one(state: State, minds: Array, shakes: Array, keys: Array) -> Trajectories:
        def advance(carry: tuple[State, Array, Array], drawn: tuple[Array, Array, Array]):
            (state, lane, speed), (mind, shake, key) = carry, drawn
            anew = mind[0] < 0.1
            lane = jnp.where(anew, -2.4 + 3.6 * mind[1], lane)
            speed = jnp.where(anew, MAX_SPEED * jnp.clip(1.5 * mind[2] - 0.25, 0.0, 1.0), speed)
            limit = np.array([MAX_ACCELERATION, MAX_STEERING], np.float32)
            action = jnp.clip(steer(state, lane, speed) + shake, -limit, limit)
            following = step(PARAMS, state, action, key)
            return (following, lane, speed), (following, action)

        return walk(advance, (state, jnp.float32(-LANE), state.car[3]), state, (minds, shakes, keys))

    return jax.vmap(one)(states, minds, shakes, jax.random.split(deciding, (batch, length)))


@cache
def task() -> Task:
    """The task; it has no settings."""
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
