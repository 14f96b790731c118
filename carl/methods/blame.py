"""A method of a package: what its code raises is one sentence that names the method, the part and the place."""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

from carl.cluster.core import clearly
from carl.errors import CarlError, RewardError, briefly, place_of
from carl.methods.method import Method

PARTS = ("source", "shows", "check_frames", "teacher", "found")
STAGE_PARTS = ("run", "made", "check", "max_failed")
"""What is called of a Method, and of each of its stages."""


def blamed(method: Method[Any]) -> Method[Any]:
    """``method``, whose code raises RewardError in place of what is not a CarlError."""
    stages = tuple(
        replace(stage, **_parts(stage, STAGE_PARTS, f"method {method.name!r}, stage {stage.name!r}"))
        for stage in method.stages
    )
    return replace(method, stages=stages, **_parts(method, PARTS, f"method {method.name!r}"))


def _parts(owner: object, names: tuple[str, ...], whose: str) -> dict[str, Any]:
    calls = {name: getattr(owner, name) for name in names}
    return {name: _blaming(call, f"{whose}: {name}") for name, call in calls.items() if call is not None}


def _blaming(call: Callable[..., Any], part: str) -> Callable[..., Any]:
    @wraps(call)
    def called(*args: Any) -> Any:
        try:
            with clearly():
                return call(*args)
        except CarlError:
            raise
        except Exception as error:  # code of others may raise anything
            place = place_of(error)
            raise RewardError(f"{part} raised {type(error).__name__}: {briefly(error)} ({place})") from error

    return called
