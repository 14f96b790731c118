"""A frame as another look of the camera might have taken it: the same every time."""

from collections.abc import Callable

import numpy as np

from carl.task import Frame

BRIGHTER, DARKER, NOISE = 1.05, 0.95, 4
"""Factors of brightness, and the largest noise in steps of a channel: what cameras differ by between two frames."""


def brighter(frame: Frame) -> Frame:
    """All channels 5 % brighter, ``uint8[H, W, 3]`` as all of these."""
    return np.asarray(np.clip(frame * BRIGHTER, 0, 255), dtype=np.uint8)


def darker(frame: Frame) -> Frame:
    """All channels 5 % darker."""
    return np.asarray(frame * DARKER, dtype=np.uint8)


def shifted(frame: Frame) -> Frame:
    """One pixel to the right; the leftmost column is there twice."""
    return np.concatenate([frame[:, :1], frame[:, :-1]], axis=1)


def noisy(frame: Frame) -> Frame:
    """Every channel of every pixel up to four steps off, drawn uniformly from one seed."""
    noise = np.random.default_rng(0).integers(-NOISE, NOISE + 1, frame.shape)
    return np.asarray(np.clip(frame + noise, 0, 255), dtype=np.uint8)


VARIATIONS: dict[str, Callable[[Frame], Frame]] = {
    "brighter": brighter,
    "darker": darker,
    "shifted by a pixel": shifted,
    "noisy": noisy,
}
"""What is tried, in words."""
