"""How large recorded episodes get: an estimate before recording, and a warning for frames larger than is of use."""

import logging
from collections.abc import Iterable
from functools import cache

import pyarrow as pa

from carl.console.progress import Progress, silent
from carl.episodes.frames import CODEC
from carl.task import LONGEST, Frame

LARGE_PIXELS = 1 << 17
"""Pixels from which on a frame is called large: twice 256 x 256, where 16 x 16 cells have 16 x 16 pixels each.

Recording, reading and judging a frame cost in proportion to its pixels: a program that counts a colour in two frames
takes 0.07 ms at 128 x 128, 0.24 at 256 x 256 and 1.1 at 400 x 600. The place and colour of a few objects, which it
looks for, do not become clearer.
"""

LARGE_BYTES = 10**9
"""Bytes of frames from which on an estimate is shown."""

_log = logging.getLogger(__name__)


def announce(
    task: str, role: str, frame: Frame, episodes: int, limits: Iterable[int | None], progress: Progress = silent
) -> None:
    """Report how large ``episodes`` with such frames get if that is ``LARGE_BYTES`` or more; warn once of large frames.

    ``limits`` are those of an episode's steps; None is no limit. Without any, nothing is reckoned: an episode may end
    long before ``carl.task.LONGEST``. What they take on disk follows from how far this one frame can be compressed.
    """
    height, width = frame.shape[:2]
    if given := [limit for limit in limits if limit]:
        steps = min(LONGEST, *given)
        packed = len(pa.compress(frame.tobytes(), codec=CODEC, asbytes=True))
        frames = episodes * (steps + 1)
        size = f"up to {amount(frames * frame.nbytes)} of frames, {amount(frames * packed)} on disk"
        if frames * frame.nbytes >= LARGE_BYTES:
            progress(f"{role} episodes: {size}", 1, 1)
        bound = f"{episodes} {role} episodes of at most {steps} steps, frames {height} x {width}"
        _log.info("task %r: %s: %s", task, bound, size)
    if height * width > LARGE_PIXELS:
        _warn(task, height, width)


@cache
def _warn(task: str, height: int, width: int) -> None:
    _log.warning(
        "task %r: its frames are %d x %d pixels, %s each, and programs rarely need more than %d pixels: recording, "
        "verifying and training take time and memory in proportion. Render smaller, or give the Task a camera that "
        "shrinks: camera=carl.cameras.Shrunk(128)",
        task,
        height,
        width,
        amount(height * width * 3),
        LARGE_PIXELS,
    )


def amount(count: float) -> str:
    """Bytes in words, as 21.6 GB."""
    for unit in ("bytes", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB" if count < 999.5 else f"{count / 1000:,.3g} TB"
