"""Checks for NaN and infinities, which find them where they first appear."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carl.errors import TaskError


def finite(values: Any) -> bool:
    """Whether ``values`` hold neither NaN nor infinity: an array or a number, or a dict, tuple or list of such."""
    if isinstance(values, np.ndarray):
        return values.dtype.kind != "f" or bool(np.isfinite(values).all())
    return all(finite(array) for _, array in _leaves(values, ""))


def check_finite(task: str, what: str, values: Any, steps: NDArray[np.int64]) -> None:
    """Raise TaskError for the first NaN or infinity in ``values``.

    Args:
        task: the task's name.
        what: what the values are, for the message.
        values: ``[N, ...]``, a row for each slot, or a dict or tuple of such.
        steps: ``int64[N]``, how far each slot's episode has come.
    """
    if finite(values):
        return
    for name, array in _leaves(values, what):
        for slot, *place in np.argwhere(~np.isfinite(array)).tolist() if not finite(array) else ():
            at = f" at {place}" if place else ""
            raise TaskError(
                f"task {task!r}: {name} of slot {slot} is {array[slot, *place]}{at} in step {steps[slot]} of its "
                "episode; nothing can be learned from that: mend what gives it, or replace it in the task's make()"
            )


def _leaves(values: Any, name: str) -> Iterator[tuple[str, NDArray[Any]]]:
    """The arrays in ``values``, each with its name."""
    if isinstance(values, np.ndarray):
        yield name, values
    elif isinstance(values, float | np.floating):
        yield name, np.asarray(values)
    elif isinstance(values, Mapping | tuple | list):
        for key, part in values.items() if isinstance(values, Mapping) else enumerate(values):
            yield from _leaves(part, f"{name}[{key!r}]")
