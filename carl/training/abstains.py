"""Abstains: the share of an iteration's frames that may abstain, and the warnings of a run in which more did."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

MAX_SHARE = 0.1
"""Largest share of the judged frames of an iteration that may abstain; above it, the reward was not trained on."""

EXIT_STATUS = 3
"""Of a command whose run came to its end, but with an iteration of more abstains than MAX_SHARE."""


_log = logging.getLogger(__name__)


def too_many(judged: int, abstained: int) -> bool:
    """Whether ``abstained`` of ``judged`` frames are above MAX_SHARE."""
    return abstained > MAX_SHARE * judged


class Spells:
    """Iterations of too many abstains in the training of ``arm``; warns at the beginning of each spell of these."""

    def __init__(self, arm: str) -> None:
        self._arm, self._going = arm, False

    def look(self, counts: Mapping[str, int], number: int) -> bool:
        """Whether ``counts``, which iteration ``number`` added, hold too many abstains."""
        judged, abstained = counts.get("judged", 0), counts.get("abstains", 0)
        before, self._going = self._going, too_many(judged, abstained)
        if self._going and not before:
            _log.warning(
                "%s: %d of the %d frames of iteration %d could not be judged and earned nothing",
                *(self._arm, abstained, judged, number),
                extra={"arm": self._arm},
            )
        return self._going


def sentences(arms: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """One for each arm with such iterations.

    ``arms`` hold, by what the arms are called, ``abstaining``, the number of these, and ``iterations``, of all: a point
    of a curve, what ``live.json`` holds, or an arm of ``result.json``.
    """
    for arm, counts in arms.items():
        if abstaining := int(counts.get("abstaining") or 0):
            yield (
                f"{arm}: in {abstaining} of {counts.get('iterations', '?')} training iterations more than "
                f"{MAX_SHARE:.0%} of the frames could not be judged and earned nothing. Do not trust what was trained; "
                "the log has the reasons"
            )
