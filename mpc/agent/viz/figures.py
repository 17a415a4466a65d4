"""Figures and films of an episode: what really happened beside what was imagined, with or without a goal."""

import csv
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imageio.v2 as imageio
import numpy as np

from mpc.agent.perception import gym_spaces
from mpc.agent.viz import images
from mpc.agent.viz.decoding import Reader, observed, reader
from mpc.agent.viz.episode import Episode, imagine, model_inputs, record
from mpc.deploy.telemetry import SOURCES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REAL, IMAGINED, BASELINE = "#1b1b1b", "#d1495b", "#8d99ae"
SHOWN = 4
"""Observation coordinates, or imagined images, that a picture has room for."""
SIDE = 480
"""Of a film's two halves, in pixels."""
BEGINNINGS = 25
"""States of an episode from which futures are imagined to be compared with what happened."""


def blank(width: float, height: float, dpi: float = 100) -> "Figure":
    """Return a figure of so many inches, drawn off screen; matplotlib is imported here, for most commands draw nothing."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def show(agent: Any, env: str, folder: Path, seed: int, **given: Any) -> dict[str, Any]:
    """Act for one episode, and write what happened into an existing folder: `video.mp4`, `futures.png`, `episode.csv`, and,
    for a task with a goal, `path.png`.

    Args:
        env: Id of its environment.
        **given: Of `mpc.agent.viz.episode.record`.

    Returns:
        `return`, `steps`, `success`, `prediction_error` (as `futures_picture` returns it), and, where there is a distance to
        a goal, the `first` and the `last` `distance`.
    """
    read, made = reader(agent), gym_spaces.make(env, render_mode="rgb_array")
    episode = record(agent, made, seed, **given)
    made.close()
    found: dict[str, Any] = {"return": float(episode.rewards.sum()), "steps": len(episode.actions)}
    found["success"] = episode.succeeded
    found["prediction_error"] = futures_picture(agent, episode, read, folder / "futures.png")
    table(episode, folder / "episode.csv")
    if episode.goal is not None:
        path_picture(agent, episode, read, folder / "path.png", env)
    if episode.distances is not None:
        found["distance"] = {"first": float(episode.distances[0]), "last": float(episode.distances[-1])}
    if episode.frames:
        fps = max((made.metadata.get("render_fps") or 20) // agent.config.perception.action_repeat, 1)
        film(agent, episode, read, folder / "video.mp4", fps=fps)
    return found


def table(episode: Episode, path: Path) -> None:
    """Write an episode's numbers, step by step, as CSV: `step`, `reward`, `distance`, `success`."""
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("step", "reward", "distance", "success"))
        for t in range(len(episode.actions) + 1):
            reward = episode.rewards[t - 1] if t else ""
            distance = "" if episode.distances is None else round(float(episode.distances[t]), 6)
            success = episode.success[t - 1] if t and np.isfinite(episode.success[t - 1]) else ""
            rows.writerow((t, reward, distance, success))


def futures_picture(agent: Any, episode: Episode, read: Reader, path: Path) -> dict[str, list[float]]:
    """Draw imagined against real futures, and how the error grows with every step imagined ahead.

    From states along the episode the model imagines what the actions that were really taken lead to; nothing real is seen
    after the first observation.

    Returns:
        Root mean square errors per model step ahead, in standard deviations of the episode: `{"imagined": …, "unchanged":
        …}`, the second those of expecting everything to stay as it is.
    """
    block = agent.program.spaces.count
    steps = len(episode.actions)
    ahead = min(agent.policy.horizon, steps) // block
    begins = np.unique(np.linspace(0, steps - ahead * block, BEGINNINGS).astype(int))
    inputs = model_inputs(agent, episode)
    imagined = np.stack(
        [read(imagine(agent, inputs[b], episode.actions[b : b + ahead * block])).mean(axis=0) for b in begins]
    )
    moments = block * np.arange(ahead + 1)
    real = np.stack([observed(agent, episode.observations[b + moments]) for b in begins])
    every = observed(agent, episode.observations[np.unique(np.linspace(0, steps, 500).astype(int))])
    errors = _errors(real, imagined, every, agent.image)
    if agent.image:
        figure, some = blank(9, 11), np.linspace(0, len(begins) - 1, 3).astype(int)
        axes = images.compare(figure, real[some], imagined[some])
    else:
        figure, axes = _lines(episode, begins, imagined, block)
    axes[-1].plot(errors["imagined"], color=IMAGINED, label="imagined")
    axes[-1].plot(errors["unchanged"], color=BASELINE, label="expecting no change")
    axes[-1].set(xlabel="model steps imagined ahead", ylabel="RMS error / std")
    axes[-1].set_ylim(0, None)
    legend_beside(axes[-1])
    figure.suptitle(f"Imagined and real futures; return {episode.rewards.sum():.1f}")
    figure.savefig(path, dpi=110)
    return {name: [round(float(e), 5) for e in values] for name, values in errors.items()}


def legend_beside(axis: Any) -> None:
    """Add a legend beside the axes, where it covers no data."""
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0, fontsize=8)


def _errors(real: np.ndarray, imagined: np.ndarray, every: np.ndarray, image: bool) -> dict[str, np.ndarray]:
    """RMS errors per step of futures `[N, n+1, ...]`, in standard deviations of all observations `[T, ...]`."""
    real, imagined = (x.reshape(*x.shape[:2], -1) for x in (real, imagined))
    scale = every.reshape(len(every), -1).std(axis=0)
    if image:  # one for all pixels: most never change
        scale = np.sqrt(np.square(scale).mean())
    scale = np.where(scale > 0, scale, 1.0)
    return {
        "imagined": np.sqrt(np.square((imagined - real) / scale).mean(axis=(0, 2))),
        "unchanged": np.sqrt(np.square((real[:, :1] - real) / scale).mean(axis=(0, 2))),
    }


def _lines(episode: Episode, begins: np.ndarray, imagined: np.ndarray, block: int) -> "tuple[Figure, list[Any]]":
    """A figure with the first coordinates of observations over time, and futures `[N, n+1, O]` that were imagined."""
    shown = min(episode.observations.shape[1], SHOWN)
    figure = blank(9, 1.9 * shown + 2.6)
    axes = [figure.add_subplot(shown + 1, 1, i + 1) for i in range(shown + 1)]
    for i in range(shown):
        axes[i].plot(episode.observations[:, i], color=REAL, label="real")
        for k in range(0, len(begins), max(len(begins) // 6, 1)):
            path = imagined[k, :, i]
            times = begins[k] + block * np.arange(len(path))
            axes[i].plot(times, path, color=IMAGINED, label="imagined" if k == 0 else None)
            axes[i].plot(begins[k], path[0], "o", color=IMAGINED, markersize=4)
        axes[i].set_ylabel(episode.label(i))
    legend_beside(axes[0])
    axes[shown - 1].set_xlabel("agent step")
    return figure, axes


def path_picture(agent: Any, episode: Episode, read: Reader, path: Path, title: str) -> None:
    """Draw the path to a goal, the distance over time, and, of images, start, first imagined future, end and goal."""
    figure = blank(11, 6.6 if agent.image else 4.6)
    upper, lower = (figure, None)
    if agent.image:
        upper, lower = figure.subfigures(2, 1, height_ratios=(5, 2), squeeze=False).ravel()
    left, right = upper.subplots(1, 2)
    if episode.frames:
        left.imshow(strobe(episode.frames))
        left.set_title("path")
    left.axis("off")
    if episode.distances is not None:
        right.plot(episode.distances, color=IMAGINED)
        right.set(xlabel="agent step", ylabel="distance to the goal", ylim=(0, None))
    if lower is not None:
        first = episode.futures[0][0]
        imagined = read(first[np.linspace(1, len(first) - 1, SHOWN).astype(int)])
        ends = observed(agent, np.stack([episode.observations[0], episode.observations[-1], np.asarray(episode.goal)]))
        names = ["start", *(f"imagined, {i + 1} of {SHOWN}" for i in range(SHOWN)), "end", "goal"]
        for axis, image, name in zip(lower.subplots(1, len(names)), [ends[0], *imagined, *ends[1:]], names, strict=True):
            axis.imshow(np.clip(image, 0.0, 1.0))
            axis.set_title(name, fontsize=9)
            axis.axis("off")
    figure.suptitle(title)
    figure.savefig(path, dpi=100)


def strobe(frames: list[np.ndarray], count: int = 12) -> np.ndarray:
    """Return `count` moments in one image: each pixel of `[h, w, 3]` bytes from where it differs most from the median."""
    picked = np.stack([frames[i] for i in np.linspace(0, len(frames) - 1, count).astype(int)]).astype(np.float32)
    usual = np.median(picked, axis=0)
    farthest = np.abs(picked - usual).sum(axis=-1).argmax(axis=0)
    return np.take_along_axis(picked, farthest[None, ..., None], axis=0)[0].astype(np.uint8)


@contextmanager
def movie(path: Path, fps: int) -> Iterator[Callable[[np.ndarray], None]]:
    """An MP4 file; the function yielded here appends an image `[h, w, 3]` of bytes, sides multiples of 8."""
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
    """
    times = rows["time"] - rows["time"][0]
    figure = blank(9, 6)
    ticks, plans, sources = (figure.add_subplot(3, 1, i + 1) for i in range(3))
    for axis, names in ((ticks, ("period", "tick_seconds")), (plans, ("plan_seconds", "age"))):
        for name, colour in zip(names, (REAL, IMAGINED), strict=True):
            axis.plot(times, 1e3 * rows[name], ".", markersize=2, color=colour, label=name.replace("_", " "))
        axis.axhline(1e3 * period, color=BASELINE, linewidth=1, label="period wanted")
        axis.set_ylabel("milliseconds")
        legend_beside(axis)
    ticks.set_title("ticks, and what they took; plans, and the age of observations; where actions came from", fontsize=10)
    sources.plot(times, rows["source"], ".", markersize=2, color=REAL)
    sources.set(yticks=range(len(SOURCES)), yticklabels=SOURCES, xlabel="seconds")
    figure.savefig(path, dpi=110)


def film(agent: Any, episode: Episode, read: Reader, path: Path, fps: int = 20) -> None:
    """Write a film: the environment, and beside it the goal, where there is one, and the future that is imagined.

    Raises:
        ValueError: If the episode was recorded without frames.
    """
    if not episode.frames:
        raise ValueError("a film needs frames: make the environment with render_mode='rgb_array'")
    panel = (_image_panel if agent.image else _line_panel)(agent, episode, read)
    with movie(path, fps) as append:
        for t, frame in enumerate(episode.frames):
            append(np.concatenate([_fit(frame, SIDE), panel(t)], axis=1))


def _image_panel(agent: Any, episode: Episode, read: Reader) -> Callable[[int], np.ndarray]:
    """Return a function that draws nine images for step t, row by row: the goal, where there is one, now, and moments of the
    future."""
    goal = [] if episode.goal is None else [observed(agent, episode.goal)]

    def panel(t: int) -> np.ndarray:
        future = episode.futures[min(t, len(episode.futures) - 1)][0]
        now = observed(agent, episode.observations[t])
        moments = np.linspace(min(1, len(future) - 1), len(future) - 1, 8 - len(goal)).round().astype(int)
        nine = [*goal, now, *read(future[moments])]
        return images.tiled([nine[3 * row : 3 * row + 3] for row in range(3)], SIDE)

    return panel


def _line_panel(agent: Any, episode: Episode, read: Reader) -> Callable[[int], np.ndarray]:
    """Return a function that draws, for step t, the recent past, the futures that the plan expects, and the goal, where
    there is one."""
    shown, block = min(episode.observations.shape[1], SHOWN), agent.program.spaces.count
    figure = blank(SIDE / 80, SIDE / 80, dpi=80)
    canvas: Any = figure.canvas
    axes = [figure.add_subplot(shown, 1, i + 1) for i in range(shown)]
    horizon, window = block * (episode.futures[0].shape[1] - 1), 40
    low, high = episode.observations.min(axis=0), episode.observations.max(axis=0)
    if episode.goal is not None:
        low, high = np.fmin(low, episode.goal), np.fmax(high, episode.goal)
    real, fans = [], []
    for i, axis in enumerate(axes):
        margin = 0.3 * (high[i] - low[i]) or 0.1 * abs(high[i]) or 1e-3
        axis.set(xlim=(-window, horizon + 1), ylim=(low[i] - margin, high[i] + margin), ylabel=episode.label(i))
        axis.axvline(0, color=BASELINE, linewidth=1)
        if episode.goal is not None and np.isfinite(episode.goal[i]):
            axis.axhline(episode.goal[i], color=BASELINE, linestyle=":")
        every = range(len(episode.futures[0]))
        fans.append([axis.plot([], [], color=IMAGINED, alpha=0.7, animated=True)[0] for _ in every])
        real.append(axis.plot([], [], color=REAL, animated=True)[0])
    axes[0].set_title("past (black), imagined future (red)" + ("" if episode.goal is None else ", goal (dots)"), fontsize=10)
    axes[-1].set_xlabel("steps from now")
    canvas.draw()  # once: what moves is drawn over it
    still = canvas.copy_from_bbox(figure.bbox)

    def panel(t: int) -> np.ndarray:
        last = min(t, len(episode.futures) - 1)
        past, imagined = episode.observations[max(t - window, 0) : t + 1], read(episode.futures[last])
        times = block * np.arange(imagined.shape[1]) - episode.ages[last] - (t - last)
        canvas.restore_region(still)
        for i, axis in enumerate(axes):
            real[i].set_data(np.arange(1 - len(past), 1), past[:, i])
            for line, future in zip(fans[i], imagined, strict=True):
                line.set_data(times, future[:, i])
            for line in (*fans[i], real[i]):
                axis.draw_artist(line)
        return np.asarray(canvas.buffer_rgba())[..., :3]

    return panel


def _fit(frame: np.ndarray, height: int) -> np.ndarray:
    """Scale an image to a height by nearest neighbours, keeping its shape; widths stay multiples of 8 for the codec."""
    width = max(round(frame.shape[1] * height / frame.shape[0] / 8) * 8, 8)
    return images.scaled(frame, height, width)[..., :3]
