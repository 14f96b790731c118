"""A task's spaces for a policy: observations packed into one array, actions unpacked from one."""

from collections.abc import Iterator
from math import prod
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from carl.errors import TaskError

WIDEST = 1 << 18
"""Numbers of an observation, pictures aside, beyond which the first layer alone is larger than the rest of a run."""


class Observations:
    """Packs observations of ``space`` into one array: pictures as bytes, the rest as float32.

    Discrete values are one-hot, other integers and floats are cast (bytes to [0, 1]), and Dicts and Tuples are laid out
    one part after the other. A picture is a uint8 Box of two to four dimensions, or any Box of three. A flat float32
    Box stays as it is.

    Attributes:
        original: ``space``.
        space: what the packed observations are in: a flat Box, float32, or uint8 if there are byte pictures. Its
            ``original_space`` is ``space``.
        pictures: shapes of the uint8 pictures, which come first.
        grids: shapes of the other pictures, which are the first of the floats.
        width: floats after them.

    Raises TaskError for a space that cannot be made numbers.
    """

    def __init__(self, space: gym.Space[Any]) -> None:
        space = getattr(space, "original_space", space)
        self.original = space
        leaves = [leaf for leaf, _ in _leaves(space)]
        self.pictures = [leaf.shape for leaf in leaves if _is_picture(leaf) and leaf.dtype == np.uint8]
        self.grids = [leaf.shape for leaf in leaves if _is_picture(leaf) and leaf.dtype != np.uint8]
        self.width = sum(_width(leaf) for leaf in leaves if not _is_picture(leaf))
        if self.width > WIDEST:
            raise TaskError(f"an observation of {space} has {self.width} numbers: leave some out in the task's make()")
        self._plain = isinstance(space, spaces.Box) and len(space.shape) == 1 and space.dtype == np.float32
        self.space = space if self._plain else self._packed()

    def _packed(self) -> spaces.Box:
        floats = sum(map(prod, self.grids)) + self.width
        if self.pictures:
            packed = spaces.Box(0, 255, (sum(map(prod, self.pictures)) + 4 * floats,), np.uint8)
        else:
            packed = spaces.Box(-np.inf, np.inf, (floats,), np.float32)
        packed.original_space = self.original  # type: ignore[attr-defined]  # RLlib's name for it
        return packed

    def pack(self, observations: Any) -> NDArray[Any]:
        """``[N, D]`` for a vector environment's ``observations`` of N slots."""
        if self._plain:
            return np.asarray(observations, dtype=np.float32)
        pictures, grids, rest = [], [], []
        for leaf, values in _leaves(self.original, observations):
            rows = np.asarray(values).reshape(len(values), -1)
            if not _is_picture(leaf):
                rest.append(_numbers(leaf, rows))
            elif leaf.dtype == np.uint8:
                pictures.append(rows)
            else:
                grids.append(rows.astype(np.float32))
        floats = [*grids, *rest]
        if not pictures:
            return np.concatenate(floats, axis=1)
        return np.concatenate(pictures + [np.ascontiguousarray(part).view(np.uint8) for part in floats], axis=1)


class Actions:
    """What a policy draws to act in ``space``, and what the environment makes of it.

    Discrete values are counted from 0; bounded numbers lie in [-1, 1] and are stretched to their bounds; numbers that
    are not bounded on both sides are clipped to the bound there is.

    Attributes:
        original: ``space``.
        space: what is drawn: Discrete for one choice; MultiDiscrete for several; a flat float32 Box for numbers; a
            Tuple of the last two for both. Its ``original_space`` is ``space``.
        bounded: whether all numbers are bounded on both sides.

    Raises TaskError for a space in which no policy can act.
    """

    def __init__(self, space: gym.Space[Any]) -> None:
        space = getattr(space, "original_space", space)
        self.original = space
        leaves = [leaf for leaf, _ in _leaves(space)]
        self._choices = [count for leaf in leaves for count in _options(leaf)]
        self._numbers = sum(prod(leaf.shape) for leaf in leaves if _is_continuous(leaf))
        self.bounded = all(_bounded(leaf).all() for leaf in leaves if _is_continuous(leaf))
        self.space = self._drawn()
        self.space.original_space = space  # type: ignore[attr-defined]  # RLlib's name for it

    def _drawn(self) -> gym.Space[Any]:
        if not self._numbers and isinstance(self.original, spaces.Discrete):
            return spaces.Discrete(self._choices[0])
        choices = spaces.MultiDiscrete(self._choices) if self._choices else None
        numbers = spaces.Box(-np.inf, np.inf, (self._numbers,), np.float32) if self._numbers else None
        if choices is not None and numbers is not None:
            return spaces.Tuple((choices, numbers))
        return choices if numbers is None else numbers  # type: ignore[return-value]  # a space has parts

    def unpack(self, drawn: NDArray[Any]) -> Any:
        """What a vector environment's ``step`` takes, for what N slots drew, ``[N]`` or ``[N, K]``; of a Tuple the
        choices come first, and then the numbers."""
        columns = drawn.reshape(len(drawn), -1)
        choices, numbers = np.split(columns, [len(self._choices)], axis=1)
        return self._fill(self.original, iter(choices.T), iter(numbers.T))

    def _fill(self, space: gym.Space[Any], choices: Iterator[Any], numbers: Iterator[Any]) -> Any:
        if isinstance(space, spaces.Dict):
            return {key: self._fill(part, choices, numbers) for key, part in space.spaces.items()}
        if isinstance(space, spaces.Tuple):
            return tuple(self._fill(part, choices, numbers) for part in space.spaces)
        source = numbers if _is_continuous(space) else choices
        assert space.shape is not None  # as of all that are neither Dict nor Tuple
        columns = np.stack([next(source) for _ in range(prod(space.shape))], axis=1)
        values = columns.reshape(len(columns), *space.shape)
        if _is_continuous(space):
            return _stretched(space, values)
        return (values + _lowest(space)).astype(space.dtype)


def _leaves(space: gym.Space[Any], values: Any = None, name: str = "") -> Iterator[tuple[Any, Any]]:
    """The parts of ``space`` that have no parts, each with its part of ``values``; raises TaskError for others."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, part in parts:
            yield from _leaves(part, None if values is None else values[key], f"{name}[{key!r}]")
    elif isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        yield space, values
    else:
        raise TaskError(
            f"no policy can see or act in {'the part ' + name + ' of a space, ' if name else ''}{space}: leave it out "
            "or wrap it in the task's make(), as gymnasium.wrappers.FilterObservation does"
        )


def _is_picture(leaf: Any) -> bool:
    dimensions = len(leaf.shape)
    return isinstance(leaf, spaces.Box) and (dimensions == 3 or (leaf.dtype == np.uint8 and dimensions in (2, 4)))


def _width(leaf: Any) -> int:
    if isinstance(leaf, spaces.Discrete | spaces.MultiDiscrete):
        return sum(_options(leaf))
    return prod(leaf.shape)


def _numbers(leaf: Any, rows: NDArray[Any]) -> NDArray[np.float32]:
    if isinstance(leaf, spaces.Discrete | spaces.MultiDiscrete):
        counted = rows - np.ravel(leaf.start)
        hot = [column[:, None] == np.arange(count) for column, count in zip(counted.T, _options(leaf), strict=True)]
        return np.concatenate(hot, axis=1).astype(np.float32)
    return rows.astype(np.float32) / np.float32(255 if leaf.dtype == np.uint8 else 1)


def _is_continuous(leaf: Any) -> bool:
    return isinstance(leaf, spaces.Box) and bool(np.issubdtype(leaf.dtype, np.floating))


def _options(leaf: Any) -> list[int]:
    """How many values each choice of ``leaf`` has; none for numbers."""
    if _is_continuous(leaf):
        return []
    if isinstance(leaf, spaces.Discrete):
        return [int(leaf.n)]
    if isinstance(leaf, spaces.MultiDiscrete):
        return [int(count) for count in np.ravel(leaf.nvec)]
    if isinstance(leaf, spaces.MultiBinary):
        return [2] * prod(leaf.shape)
    spans = np.ravel(leaf.high.astype(np.float64) - leaf.low.astype(np.float64)) + 1
    if spans.max(initial=0) > WIDEST:
        raise TaskError(f"no policy can choose among the values of {leaf}: give it bounds, or make it a float Box")
    return [int(span) for span in spans]


def _lowest(leaf: Any) -> Any:
    if isinstance(leaf, spaces.MultiBinary):
        return 0
    return leaf.low if isinstance(leaf, spaces.Box) else leaf.start


def _bounded(leaf: Any) -> NDArray[np.bool_]:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.isfinite((leaf.high - leaf.low).astype(np.float32)))


def _stretched(leaf: Any, values: NDArray[Any]) -> NDArray[Any]:
    """From [-1, 1] to the bounds where there are two; within the bounds everywhere."""
    bounded = _bounded(leaf)
    low, high = np.where(bounded, leaf.low, -1), np.where(bounded, leaf.high, 1)
    stretched = np.where(bounded, low + (values + 1.0) * (high - low) / 2.0, values)
    return np.asarray(np.clip(stretched.astype(leaf.dtype), leaf.low, leaf.high))
