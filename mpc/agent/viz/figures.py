"""What a person looks at after a run: imagined futures beside real ones, as a picture and as a film."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import imageio.v2 as imageio
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mpc.agent.perception import gym_spaces
from mpc.agent.perception.action_repeat import Repeated
from mpc.agent.viz import images
from mpc.agent.viz.probe import Probe
from mpc.deploy.telemetry import SOURCES

REAL, IMAGINED, BASELINE = "#1b1b1b", "#d1495b", "#8d99ae"
SHOWN = 4  # observation coordinates that a picture has room for
SIDE = 480  # of a film's two halves, in pixels


class Episode(NamedTuple):
    """One episode with all that was seen and imagined; T steps, S starts, horizon H.

    `observations` `[T+1, O]`, or images `[T+1, H, W, C]`; `actions` `[T, ...]`, `rewards` `[T]`; `frames`: T images or none;
    `futures`: T arrays `[S, H+1, D]` of latents, what the plans of each step were expected to lead to.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    frames: list[np.ndarray]
    futures: list[np.ndarray]


def record(agent: Any, env: gymnasium.Env, seed: int) -> Episode:
    """Act for one episode and keep everything, a step being as long as the agent holds its actions.

    Args:
        agent: Plans.
        env: One environment; drawn if it was made with `render_mode="rgb_array"`.
        seed: Of its reset.
    """
    env = Repeated(env, agent.settings.repeat)
    raw, _ = env.reset(seed=seed)
    draw = env.render_mode == "rgb_array"
    observations, actions, rewards, frames, futures = [raw], [], [], [], []
    state, over = None, False
    while not over:
        if draw:
            frames.append(_bytes(np.asarray(env.render())))
        action, state = agent.predict(raw, state=None if state is None else state.released())
        raw, reward, terminated, truncated, _ = env.step(action)
        futures.append(np.asarray(agent.futures(raw, state).latent))
        observations.append(raw)
        actions.append(action)
        rewards.append(float(reward))
        over = terminated or truncated
    rows = np.concatenate([gym_spaces.rows(agent.observation_space, o, batched=False) for o in observations])
    return Episode(rows, np.stack(actions), np.array(rewards), frames, futures)


def futures_picture(agent: Any, episode: Episode, probe: Probe, path: Path) -> dict[str, list[float]]:
    """Draw imagined against real futures, and how the error grows with every step imagined ahead.

    From states along the episode the model imagines what the actions that were really taken lead to; nothing real is seen
    after the first observation.

    Args:
        agent: Whose model imagines.
        episode: What really happened.
        probe: Reads latents as observations.
        path: Of the PNG file.

    Returns:
        Root mean square errors per step ahead, in standard deviations of the episode: `{"imagined": …, "unchanged": …}`,
        the second those of expecting everything to stay as it is.
    """
    steps, horizon = len(episode.actions), min(agent.policy.planner.problem.horizon, len(episode.actions))
    begins = np.unique(np.linspace(0, steps - horizon, 25).astype(int))
    imagined = np.stack(
        [probe(agent.imagine(episode.observations[b], episode.actions[b : b + horizon]).latent) for b in begins]
    )
    looked = [episode.observations[b : b + horizon + 1] for b in begins]
    real = np.stack([_looked(agent, rows).reshape(len(rows), -1) for rows in looked])
    every = _looked(agent, episode.observations[np.unique(np.linspace(0, steps, 500).astype(int))])
    scale = np.maximum(every.reshape(len(every), -1).std(axis=0), 1e-6)
    if agent.image:  # one for all pixels: most never change
        scale = np.sqrt(np.square(scale).mean())
    errors = {
        "imagined": np.sqrt(np.square((imagined - real) / scale).mean(axis=(0, 2))),
        "unchanged": np.sqrt(np.square((real[:, :1] - real) / scale).mean(axis=(0, 2))),
    }
    if agent.image:
        figure, some = Figure(figsize=(9, 11), layout="constrained"), np.linspace(0, len(begins) - 1, 3).astype(int)
        shape = (len(some), horizon + 1, *episode.observations.shape[1:3], 3)
        axes = images.compare(figure, real[some].reshape(shape), imagined[some].reshape(shape))
    else:
        figure, axes = _lines(episode, begins, imagined)
    axes[-1].plot(errors["imagined"], color=IMAGINED, label="imagined")
    axes[-1].plot(errors["unchanged"], color=BASELINE, label="expecting no change")
    axes[-1].set(xlabel="steps imagined ahead", ylabel="RMS error / std")
    axes[-1].set_ylim(0, None)
    axes[-1].legend(loc="upper left")
    figure.suptitle(f"Imagined and real futures; return {episode.rewards.sum():.1f}")
    figure.savefig(path, dpi=110)
    return {name: [round(float(e), 5) for e in values] for name, values in errors.items()}


def _looked(agent: Any, observations: np.ndarray) -> np.ndarray:
    """Observations as a probe reads them off latents."""
    return images.drawn(observations, agent.observation_space) if agent.image else observations


def _lines(episode: Episode, begins: np.ndarray, imagined: np.ndarray) -> tuple[Figure, list[Any]]:
    """A figure with the first coordinates of observations over time, and futures `[N, H+1, O]` that were imagined."""
    shown = min(episode.observations.shape[1], SHOWN)
    figure = Figure(figsize=(9, 1.9 * shown + 2.6), layout="constrained")
    axes = [figure.add_subplot(shown + 1, 1, i + 1) for i in range(shown + 1)]
    for i in range(shown):
        axes[i].plot(episode.observations[:, i], color=REAL, label="real")
        for k in range(0, len(begins), max(len(begins) // 6, 1)):
            path = imagined[k, :, i]
            axes[i].plot(begins[k] + np.arange(len(path)), path, color=IMAGINED, label="imagined" if k == 0 else None)
            axes[i].plot(begins[k], path[0], "o", color=IMAGINED, markersize=4)
        axes[i].set_ylabel(f"observation {i}")
    axes[0].legend(loc="upper right")
    axes[shown - 1].set_xlabel("environment step")
    return figure, axes


@contextmanager
def movie(path: Path, fps: int) -> Iterator[Callable[[np.ndarray], None]]:
    """An MP4 file; the function yielded here appends an image `[h, w, 3]` of bytes, sides multiples of 8.

    Args:
        path: Of the file.
        fps: Frames per second.
    """
    writer: Any = imageio.get_writer(path, fps=fps, macro_block_size=8, codec="libx264")
    with warnings.catch_warnings(), writer:
        # ffmpeg is a program of its own: what JAX fears of a forked interpreter ends when it is started
        warnings.filterwarnings("ignore", message=".*fork.*", category=RuntimeWarning)
        yield writer.append_data


def timing(rows: np.ndarray, period: float, path: Path) -> None:
    """Draw how punctual a control loop was: when its ticks came, how long plans took, and where actions came from.

    Args:
        rows: Of `mpc.deploy.telemetry.Health.rows`.
        period: Seconds between two ticks, as they should be.
        path: Of the PNG file.
    """
    times = rows["time"] - rows["time"][0]
    figure = Figure(figsize=(9, 6), layout="constrained")
    ticks, plans, sources = (figure.add_subplot(3, 1, i + 1) for i in range(3))
    for axis, names in ((ticks, ("period", "tick_seconds")), (plans, ("plan_seconds", "age"))):
        for name, colour in zip(names, (REAL, IMAGINED), strict=True):
            axis.plot(times, 1e3 * rows[name], ".", markersize=2, color=colour, label=name.replace("_", " "))
        axis.axhline(1e3 * period, color=BASELINE, linewidth=1, label="period wanted")
        axis.set_ylabel("milliseconds")
        axis.legend(loc="upper right", fontsize=8)
    ticks.set_title("ticks, and what they took; plans, and the age of observations; where actions came from", fontsize=10)
    sources.plot(times, rows["source"], ".", markersize=2, color=REAL)
    sources.set(yticks=range(len(SOURCES)), yticklabels=SOURCES, xlabel="seconds")
    figure.savefig(path, dpi=110)


def film(episode: Episode, probe: Probe, path: Path, fps: int = 20) -> None:
    """Write a film: the environment, and beside it what the plans expect; of images, what the leading one does.

    Args:
        episode: With frames.
        probe: Reads latents as observations, or as drawings of images.
        path: Of the MP4 file.
        fps: Frames per second.

    Raises:
        ValueError: If the episode was recorded without frames.
    """
    if not episode.frames:
        raise ValueError("a film needs frames: make the environment with render_mode='rgb_array'")
    panel = (_moving_lines if episode.observations.ndim == 2 else _imagined_frames)(episode, probe)
    with movie(path, fps) as append:
        for t, frame in enumerate(episode.frames):
            append(np.concatenate([_fit(frame, SIDE), panel(t)], axis=1))


def _imagined_frames(episode: Episode, probe: Probe) -> Callable[[int], np.ndarray]:
    """What draws, for step t, the images that the leading plan expects, `[SIDE, SIDE, 3]`."""
    size = episode.observations.shape[1:3]
    return lambda t: images.futures_panel(episode.futures[max(t - 1, 0)][0], probe, size, SIDE)


def _moving_lines(episode: Episode, probe: Probe) -> Callable[[int], np.ndarray]:
    """What draws, for step t, the recent past and the future that every start of the planner expects, `[SIDE, SIDE, 3]`."""
    shown = min(episode.observations.shape[1], SHOWN)
    figure = Figure(figsize=(SIDE / 80, SIDE / 80), dpi=80, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = [figure.add_subplot(shown, 1, i + 1) for i in range(shown)]
    horizon, window = episode.futures[0].shape[1], 40
    low, high = episode.observations.min(axis=0), episode.observations.max(axis=0)
    real, fans = [], []
    for i, axis in enumerate(axes):
        margin = 0.3 * (high[i] - low[i]) + 1e-3
        axis.set(xlim=(-window, horizon), ylim=(low[i] - margin, high[i] + margin), ylabel=f"observation {i}")
        axis.axvline(0, color=BASELINE, linewidth=1)
        every = range(len(episode.futures[0]))
        fans.append([axis.plot([], [], color=IMAGINED, alpha=0.7, animated=True)[0] for _ in every])
        real.append(axis.plot([], [], color=REAL, animated=True)[0])
    axes[0].set_title("what was (black), what is imagined (red)", fontsize=10)
    axes[-1].set_xlabel("steps from now")
    canvas.draw()  # once: what moves is drawn over it
    still = canvas.copy_from_bbox(figure.bbox)

    def panel(t: int) -> np.ndarray:
        past, futures = episode.observations[max(t - window, 0) : t + 1], probe(episode.futures[max(t - 1, 0)])
        canvas.restore_region(still)
        for i, axis in enumerate(axes):
            real[i].set_data(np.arange(1 - len(past), 1), past[:, i])
            for line, future in zip(fans[i], futures, strict=True):
                line.set_data(np.arange(len(future)), future[:, i])
            for line in (*fans[i], real[i]):
                axis.draw_artist(line)
        return np.asarray(canvas.buffer_rgba())[..., :3]

    return panel


def _bytes(frame: np.ndarray) -> np.ndarray:
    """A frame as bytes, where it was drawn in numbers from 0 to 1."""
    return frame if frame.dtype == np.uint8 else (255 * np.clip(frame, 0.0, 1.0)).astype(np.uint8)


def _fit(frame: np.ndarray, height: int) -> np.ndarray:
    """Scale an image to a height by nearest neighbours, keeping its shape; widths stay multiples of 8 for the codec."""
    width = max(round(frame.shape[1] * height / frame.shape[0] / 8) * 8, 8)
    rows = np.arange(height) * frame.shape[0] // height
    columns = np.arange(width) * frame.shape[1] // width
    return frame[rows][:, columns, :3]
