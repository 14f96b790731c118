"""Actions as their space has them, whoever wrote them."""

from typing import Any

import gymnasium as gym
import numpy as np

from carl.errors import TaskError


def cast(space: gym.Space[Any], action: Any, who: str) -> Any:
    """A copy of ``action`` with ``space``'s dtype and shape, as a vector environment would hand it over.

    ``action`` may be an int, a float, a list, a NumPy scalar or an array of as many numbers as the space has. A float
    in place of an integer has to be whole, and none NaN or infinite. Raises TaskError, which begins with ``who``
    acted, if it cannot be cast or is outside ``space``, or if that has no dtype of its own (Dict, Tuple).
    """
    if space.dtype is None or space.shape is None:
        raise TaskError(f"{who} acts in {space}, which is not one array: give the environment a flat action space")
    try:
        given = np.asarray(action)
        with np.errstate(all="ignore"):  # what does not survive the cast is seen below
            kept = given.astype(space.dtype).reshape(space.shape)[()]
        number = given.dtype.kind in "biuf"
        same = np.isfinite(kept).all() if kept.dtype.kind == "f" else np.array_equal(kept.ravel(), given.ravel())
    except (TypeError, ValueError, OverflowError):  # ragged lists, words, None, or too many numbers
        number = same = False
    if not (number and same):
        raise TaskError(f"{who} gave the action {action!r:.80}, which cannot be cast to {space}")
    if not space.contains(kept):
        raise TaskError(f"{who} gave the action {action!r:.80}, which is outside {space}")
    return kept
