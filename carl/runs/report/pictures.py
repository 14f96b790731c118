"""Frames as data URIs: stills as PNG, episodes as looping WebP."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carl.episodes.frames import Frames
from carl.task import Frame

MAX_SIDE = 192
"""Longest side of an embedded picture, in pixels; larger frames are shrunk, smaller ones enlarged by the browser."""

MAX_FRAMES = 150
"""Frames of an animation; of longer episodes every n-th is kept."""

FRAME_MS, HOLD_MS = 130, 1600
"""How long a frame of an animation stays, and the last one."""

RGB = tuple[int, int, int]
TONES: tuple[RGB, ...] = (
    (20, 152, 138),
    (139, 98, 235),
    (222, 82, 122),
    (186, 138, 24),
    (22, 142, 205),
    (92, 158, 62),
    (166, 104, 74),
    (108, 120, 152),
)
"""Colours of sub-tasks in their order, wherever they appear; none is used for an arm."""

TRACK = (128, 128, 128, 70)
"""Colour of an empty progress bar: visible on white and on black."""


def still(frame: Frame) -> str:
    """A PNG data URI of ``uint8[H, W, 3]``."""
    return _uri(_png(_shrunk(Image.fromarray(np.ascontiguousarray(frame)))), "png")


def animation(frames: Frames, progress: NDArray[np.float64] | None, colours: Sequence[RGB]) -> tuple[str, str]:
    """Data URIs of a looping WebP of ``uint8[T + 1, H, W, 3]`` and of its last frame as PNG.

    Under each frame there is a bar for each sub-task, filled to ``progress``, ``float[T + 1, K]``, in its colour.
    """
    kept = thinned(len(frames), MAX_FRAMES)
    images = [_shrunk(Image.fromarray(np.ascontiguousarray(frames[index]))) for index in kept]
    if progress is not None:
        images = [_with_bars(image, progress[index], colours) for image, index in zip(images, kept, strict=True)]
    file = io.BytesIO()
    stay = [FRAME_MS] * (len(images) - 1) + [HOLD_MS]
    images[0].save(
        file, "WEBP", save_all=True, append_images=images[1:], duration=stay, loop=0, lossless=True, quality=80
    )
    return _uri(file.getvalue(), "webp"), _uri(_png(images[-1]), "png")


def thinned(count: int, most: int) -> list[int]:
    """At most ``most`` indices below ``count``, evenly spread, the first and the last among them."""
    return sorted({int(index) for index in np.linspace(0, count - 1, min(count, most)).round()})


def _with_bars(image: Image.Image, progress: NDArray[np.float64], colours: Sequence[RGB]) -> Image.Image:
    """The frame with thin bars below it on a transparent ground."""
    unit = max(1, image.width // 64)
    height = image.height + unit * (1 + 4 * len(progress))
    canvas = Image.new("RGBA", (image.width, height), (0, 0, 0, 0))
    canvas.paste(image, (0, 0))
    for index, value in enumerate(progress):
        top = image.height + unit * (2 + 4 * index)
        canvas.paste(TRACK, (0, top, image.width, top + 2 * unit))
        canvas.paste((*colours[index % len(colours)], 255), (0, top, round(image.width * float(value)), top + 2 * unit))
    return canvas


def _shrunk(image: Image.Image) -> Image.Image:
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BOX)
    return image


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
