"""Abstains: how many of an iteration's frames may be left unjudged, and how a run says that there were more."""

from collections.abc import Iterator, Mapping
from typing import Any

from carl.config import Arm

MAX_SHARE = 0.1
"""Largest share of the frames judged in an iteration that may abstain; a training of more is not one on the reward."""

EXIT_STATUS = 3
"""Of a command whose run came to its end, though more abstained in one of its iterations."""


def too_many(judged: int, abstained: int) -> bool:
    """Whether ``abstained`` of ``judged`` frames are above MAX_SHARE."""
    return abstained > MAX_SHARE * judged


def sentences(arms: Mapping[Arm, Mapping[str, Any]], names: Mapping[str, str]) -> Iterator[str]:
    """One for each arm with such iterations.

    ``arms`` hold, by arm, ``abstaining``, the number of these, and ``iterations``, of all: a point of a curve, what
    ``live.json`` says, or an arm of ``result.json``; ``names`` are those of the arms.
    """
    for arm, counts in arms.items():
        if abstaining := int(counts.get("abstaining") or 0):
            yield (
                f"{names[arm]}: in {abstaining} of {counts.get('iterations', '?')} training iterations more than "
                f"{MAX_SHARE:.0%} of the frames could not be judged and earned nothing. Do not trust what was trained; "
                "the log says why they could not"
            )
