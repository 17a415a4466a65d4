"""Images: paths over the rooms, distance fields, and a film."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from benchmarks.pixels.episodes import Outcome
from benchmarks.pixels.worlds import World
from mpc.agent.viz.figures import movie

PyTree = Any
REACHED, MISSED = "#2a9d8f", "#d1495b"
MAX_EPISODES = 8  # episodes in an image


def picture(
    world: World, outcome: Outcome, starts: PyTree, fields: tuple[np.ndarray, dict[str, np.ndarray]], path: Path, title: str
) -> None:
    """Draws the paths of the first episodes, and the distance field of the first episode's goal.

    Args:
        world: World of the episodes.
        outcome: Result of the episodes.
        starts: Start states `[N, ...]`.
        fields: Result of `probes.field` for the first episode.
        path: Path of the PNG file.
        title: Title of the image.
    """
    count = min(MAX_EPISODES, len(outcome.success))
    columns = -(-count // 2)
    figure = Figure(figsize=(max(2.7 * columns, 7.0), 8.6), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(2, 1.2), squeeze=False).ravel()
    for index, axis in enumerate(upper.subplots(2, columns, squeeze=False).ravel()):
        if index < count:
            draw_path(world, axis, outcome, starts, index)
        else:
            axis.axis("off")
    extent, maps = fields
    for axis, (name, field) in zip(lower.subplots(1, len(maps), squeeze=False)[0], maps.items(), strict=True):
        draw_field(world, axis, extent, field, np.asarray(world.bare(starts).goal)[0])
        axis.set_title(f"distance to the first goal: {name}", fontsize=9)
        lower.colorbar(axis.images[0], ax=axis, shrink=0.8)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def draw_path(world: World, axis: Any, outcome: Outcome, starts: PyTree, index: int) -> None:
    """Draws the path of one episode in its room."""
    image = np.asarray(jax.jit(world.task.render)(jax.tree.map(lambda x: x[index], starts)))
    axis.imshow(image, extent=(0.15, 3.45, 0.15, 3.45) if world.name == "u_maze" else (-0.5, 64.5, 64.5, -0.5))
    states, reached = world.bare(outcome.states), bool(outcome.success[index, -1])
    line, colour = np.asarray(states.position)[index], REACHED if reached else MISSED
    jumps = np.flatnonzero(np.diff(np.asarray(states.jumps)[index])) + 1 if hasattr(states, "jumps") else []
    for piece in np.split(line, jumps):
        axis.plot(*piece.T, color=colour, linewidth=1.4)
    for jump in jumps:
        axis.plot(*line[jump - 1 : jump + 1].T, color=colour, linewidth=0.8, linestyle=":")
    axis.plot(*line[0], "o", color="#1b1b1b", markersize=4)
    axis.plot(*line[-1], "s", color=colour, markersize=4)
    axis.set(xticks=[], yticks=[])
    axis.set_title("reached" if reached else "missed", fontsize=9)


def draw_field(world: World, axis: Any, extent: np.ndarray, field: np.ndarray, goal: np.ndarray) -> None:
    """Draws a distance over a room, with contour lines."""
    low_x, high_x, low_y, high_y = extent
    axis.imshow(field, extent=(low_x, high_x, low_y, high_y), origin="lower", cmap="viridis")
    xs, ys = (
        np.linspace(low, high, size) for low, high, size in zip(extent[::2], extent[1::2], field.shape[::-1], strict=True)
    )
    axis.contour(xs, ys, field, 12, colors="white", linewidths=0.5)
    axis.plot(*goal, "*", color=MISSED, markersize=11)
    axis.set(xticks=[], yticks=[])
    if world.name != "u_maze":  # images have their first row at the top
        axis.invert_yaxis()


def film(world: World, outcome: Outcome, path: Path, *, count: int = 6, every: int = 2) -> None:
    """Writes a film of the first episodes, side by side.

    Args:
        world: World of the episodes.
        outcome: Result of the episodes.
        path: Path of the MP4 file.
        count: Number of episodes.
        every: Steps between two frames.
    """
    count = min(count, len(outcome.success))
    render = jax.jit(jax.vmap(world.task.render))
    steps = outcome.success.shape[1]
    columns = min(3, count)
    with movie(path, world.task.fps // every or 1) as append:
        for t in range(0, steps, every):
            frames = np.asarray(render(jax.tree.map(lambda x, t=t: x[:count, t], outcome.states)))[:, ::2, ::2]
            side = frames.shape[1] // 8 * 8
            frames = frames[:, :side, :side]
            blank = [np.full_like(frames[0], 255)] * (-count % columns)
            tiles = [*frames, *blank]
            rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
            append(np.concatenate(rows, axis=0))
