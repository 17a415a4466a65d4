"""What a person looks at after a plan to a goal: the way that was gone, the goal, and what was imagined on the way."""

from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mpc.agent.actor.time_budget import Mode
from mpc.agent.goal_agent import GoalAgent
from mpc.agent.viz.figures import movie

SHOWN = 4  # imagined moments that a picture has room for
LINE, FAINT = "#d1495b", "#8d99ae"


class Episode(NamedTuple):
    """One episode of T steps to a goal.

    `frames`: T+1 renders, or none. `observations`: T+1. `distances` `[T+1]`, to the goal, as plans minimise them. `futures`:
    what the plan under way was expected to look like, `[SHOWN, ...]`, for every step. `success` `[T]`, as the environment
    tells, NaN where it does not.
    """

    frames: list[np.ndarray]
    observations: list[np.ndarray]
    distances: np.ndarray
    futures: list[np.ndarray]
    success: np.ndarray


def pursue(
    agent: GoalAgent,
    env: gymnasium.Env,
    observation: Any,
    goal: np.ndarray,
    steps: int | None = None,
    mode: Mode = "plan",
) -> Episode:
    """Go after a goal for one episode, and keep everything.

    Args:
        agent: Plans.
        env: One environment, reset; drawn if it was made with `render_mode="rgb_array"`.
        observation: What is seen after the reset.
        goal: An observation.
        steps: At most; to the end of the episode if None.
        mode: As for `GoalAgent.predict`.
    """
    draw = env.render_mode == "rgb_array"
    frames, observations, futures, success = [], [observation], [], []
    far, state, over = [agent.far(observation, goal)], None, False
    while not over and (steps is None or len(success) < steps):
        if draw:
            frames.append(np.asarray(env.render()))
        action, state = agent.predict(observation, goal, state, mode=mode)
        if state.age == 1 or not futures:  # a new plan
            imagined = np.asarray(agent.imagine(state).latent)
            futures.append(agent.look_up(imagined[np.linspace(1, len(imagined) - 1, SHOWN).astype(int)]))
        else:
            futures.append(futures[-1])
        observation, _, terminated, truncated, info = env.step(action)
        observations.append(observation)
        far.append(agent.far(observation, goal))
        success.append(float(info["success"]) if "success" in info else np.nan)
        over = terminated or truncated
    if draw:
        frames.append(np.asarray(env.render()))
    return Episode(frames, observations, np.array(far), futures, np.array(success))


def rgb(observation: np.ndarray) -> np.ndarray:
    """An image `[h, w, c]` in colours: two channels as ink of two colours on white paper."""
    image = observation.astype(np.float32) / (
        255.0 if observation.dtype == np.uint8 else max(float(observation.max()), 1e-6)
    )
    if image.shape[-1] == 1:
        return np.repeat(image, 3, axis=-1)
    if image.shape[-1] == 2:
        inks = np.array([[0.18, 0.71, 0.64], [0.77, 0.73, 0.68]], np.float32)  # what paper loses to each
        return np.clip(1.0 - image @ inks, 0.0, 1.0)
    return np.clip(image[..., :3], 0.0, 1.0)


def strobe(frames: list[np.ndarray], count: int = 12) -> np.ndarray:
    """Many moments in one image: wherever one of them differs most from what is usual there, it is shown."""
    picked = np.stack([frames[i] for i in np.linspace(0, len(frames) - 1, count).astype(int)]).astype(np.float32)
    usual = np.median(picked, axis=0)
    strangest = np.abs(picked - usual).sum(axis=-1).argmax(axis=0)
    return np.take_along_axis(picked, strangest[None, ..., None], axis=0)[0].astype(np.uint8)


def picture(episode: Episode, goal: np.ndarray, path: Path, title: str) -> None:
    """Draw the way that was gone, start, goal and end, what was imagined at first, and the distance over time.

    Args:
        episode: What happened.
        goal: The goal's observation.
        path: Of the PNG file.
        title: Above everything.
    """
    images = goal.ndim == 3
    figure = Figure(figsize=(11, 6.6 if images else 4.6), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(5, 2), squeeze=False).ravel() if images else (figure, None)
    left, right = upper.subplots(1, 2)
    if episode.frames:
        left.imshow(strobe(episode.frames))
        left.set_title("the way that was gone")
    left.axis("off")
    right.plot(episode.distances, color=LINE)
    right.set(xlabel="environment step", ylabel="distance to the goal", ylim=(0, None))
    if lower is not None:
        shown = [episode.observations[0], *episode.futures[0], episode.observations[-1], goal]
        names = ["start", *(f"imagined, {i + 1} of {SHOWN}" for i in range(SHOWN)), "end", "goal"]
        for axis, image, name in zip(lower.subplots(1, len(shown)), shown, names, strict=True):
            axis.imshow(rgb(np.asarray(image)))
            axis.set_title(name, fontsize=9)
            axis.axis("off")
    figure.suptitle(title)
    figure.savefig(path, dpi=100)


def film(episode: Episode, goal: np.ndarray, path: Path, fps: int = 20) -> None:
    """Write a film: the environment, and beside it the goal and what the plan under way imagines.

    Args:
        episode: With frames.
        goal: The goal's observation.
        path: Of the MP4 file.
        fps: Frames per second.

    Raises:
        ValueError: If the episode was recorded without frames.
    """
    if not episode.frames:
        raise ValueError("a film needs frames: make the environment with render_mode='rgb_array'")
    figure = Figure(figsize=(10.4, 5.2), dpi=80, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    images = goal.ndim == 3
    world, side = figure.subfigures(1, 2, squeeze=False).ravel()
    scene = world.subplots()
    drawn = scene.imshow(episode.frames[0])
    scene.axis("off")
    thumbs = []
    if images:
        grid = side.subplots(3, 2)
        for axis, name in zip(grid.ravel(), ("goal", "now", *("imagined",) * SHOWN), strict=True):
            thumbs.append(axis.imshow(rgb(goal)))
            axis.set_title(name, fontsize=8)
            axis.axis("off")
    else:
        axis = side.subplots()
        axis.set(xlim=(0, len(episode.distances)), ylim=(0, 1.05 * episode.distances.max()), ylabel="distance to the goal")
        thumbs.append(axis.plot([], [], color=LINE)[0])
    canvas.draw()
    figure.set_layout_engine("none")  # what moves needs no room of its own
    with movie(path, fps) as append:
        for t, frame in enumerate(episode.frames):
            drawn.set_data(frame)
            if images:
                future = episode.futures[min(t, len(episode.futures) - 1)]
                for thumb, image in zip(thumbs[1:], [episode.observations[t], *future], strict=True):
                    thumb.set_data(rgb(np.asarray(image)))
            else:
                thumbs[0].set_data(np.arange(t + 1), episode.distances[: t + 1])
            canvas.draw()
            append(np.asarray(canvas.buffer_rgba())[..., :3])
