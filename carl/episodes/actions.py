"""Actions cast to the dtype and shape of their space."""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from carl.errors import TaskError


def cast(space: gym.Space[Any], action: Any, who: str) -> Any:
    """A copy of ``action`` with ``space``'s dtype and shape, as a vector environment would pass it.

    ``action`` may be an int, a float, a list, a NumPy scalar or an array of as many numbers as the space has. A float
    in place of an integer has to be whole, and NaN and infinity are refused. Raises TaskError, whose message begins
    with ``who``, if it cannot be cast or is outside ``space``, or if ``space`` is neither numbers nor a Dict or Tuple
    of them.
    """
    if isinstance(space, spaces.Dict):
        parts = dict(action) if isinstance(action, Mapping) else {}
        return {key: cast(part, parts.get(key), f"{who} for {key!r}") for key, part in space.items()}
    if isinstance(space, spaces.Tuple):
        parts = dict(enumerate(action)) if isinstance(action, Sequence | np.ndarray) else {}
        return tuple(cast(part, parts.get(key), f"{who} for [{key}]") for key, part in enumerate(space))
    if space.dtype is None or space.shape is None:
        raise TaskError(f"{who} acts in {space}, which is not of numbers: give the environment another action space")
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


def recorded(action: Any) -> NDArray[Any]:
    """A copy of a cast ``action`` as one array: of a Dict or Tuple, the numbers of its parts one after the other."""
    if isinstance(action, Mapping | tuple):
        parts = action.values() if isinstance(action, Mapping) else action
        return np.concatenate([np.ravel(recorded(part)) for part in parts])
    return np.array(action)
