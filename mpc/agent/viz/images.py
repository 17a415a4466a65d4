"""Images of an agent, observed or imagined, drawn for people.

An observation may have any number of channels, and a drawing has three. Each channel has a colour, so that a drawing is a
product with a matrix `[C, 3]`, which a linear probe can read off latents.
"""

import colorsys
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from PIL import Image, ImageDraw

from mpc.agent.perception import gym_spaces

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = (90, 90, 90)  # grey, legible on light and on dark
COLUMNS = 6  # moments that a picture has room for


def colours(space: spaces.Space) -> np.ndarray:
    """The colour `[C, 3]` of every channel: grey or red, green and blue, the newest of a stack alone; else hues."""
    channels = gym_spaces.observation_shape(space)[-1]
    newest = (channels // space.shape[0] if len(space.shape) == 4 else 1) if gym_spaces.is_stack(space) else channels  # type: ignore[index,arg-type]
    if newest == 1:
        shown = np.ones((1, 3))
    elif newest == 3:
        shown = np.eye(3)
    else:
        shown = np.array([colorsys.hsv_to_rgb(i / newest, 0.75, 1.0) for i in range(newest)])
    return np.concatenate([np.zeros((channels - newest, 3)), shown])


def drawn(images: np.ndarray, space: spaces.Space) -> np.ndarray:
    """Draw images `[..., H, W, C]`, bytes or numbers from 0 to 1, in colours `[..., H, W, 3]` from 0 to 1.

    Where channels overlap it is brighter.
    """
    numbers = images.astype(np.float32) / (255.0 if images.dtype == np.uint8 else 1.0)
    return np.clip(numbers @ colours(space).astype(np.float32), 0.0, 1.0)


def tiled(rows: list[list[np.ndarray]], side: int) -> np.ndarray:
    """Tile rows of equally many images `[h, w, 3]` from 0 to 1 to one of bytes, `[side, side, 3]`."""
    width, height = side // len(rows[0]), side // len(rows)
    canvas = np.zeros((side, side, 3), np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            small = scaled((255 * np.clip(image, 0.0, 1.0)).astype(np.uint8), height - 2, width - 2)
            canvas[i * height : (i + 1) * height - 2, j * width : (j + 1) * width - 2] = small
    return canvas


def scaled(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image `[h, w, ...]` of another height and width, by nearest neighbours."""
    rows, columns = (np.arange(new) * old // new for new, old in zip((height, width), image.shape, strict=False))
    return image[rows][:, columns]


def compare(figure: "Figure", real: np.ndarray, imagined: np.ndarray) -> list[Any]:
    """Draw N pairs of rows, what really happened above what was imagined, drawings `[N, T, h, w, 3]` of T moments.

    Returns:
        The axes, of which the last, below, is empty.
    """
    count, moments = len(real), np.unique(np.linspace(0, real.shape[1] - 1, COLUMNS).round().astype(int))
    grid = figure.add_gridspec(2 * count + 2, len(moments))
    axes = []
    for n in range(count):
        for below, (name, drawings) in enumerate((("real", real[n]), ("imagined", imagined[n]))):
            for column, moment in enumerate(moments):
                axis = figure.add_subplot(grid[2 * n + below, column])
                axis.imshow(np.clip(drawings[moment], 0.0, 1.0), interpolation="nearest")
                axis.set(xticks=[], yticks=[])
                if column == 0:
                    axis.set_ylabel(name, fontsize=8)
                if n == below == 0:
                    axis.set_title(f"+{moment}", fontsize=9)
                axes.append(axis)
    return [*axes, figure.add_subplot(grid[2 * count :, :])]


def captioned(image: np.ndarray, text: str) -> np.ndarray:
    """Return an image `[h, w, 3]` of bytes with a line of text in its upper left corner."""
    drawn = Image.fromarray(np.ascontiguousarray(image))
    ImageDraw.Draw(drawn).text((12, 10), text, fill=CAPTION, font_size=max(image.shape[0] // 24, 10))
    return np.asarray(drawn)
