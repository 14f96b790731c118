"""What every source has at work, whatever computes its reward: one kind of error, checks, and quarantine."""

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from carl.errors import RewardError, TaskError, briefly
from carl.rewards.source import Judged, RewardSource, Seen, blank

SOURCE = "reward "
"""How the message of an error that is a source's fault begins, before the source's id."""

WINDOW = 1_000
MAX_ABSTAINS = 50
"""More abstains than this among the last ``WINDOW`` judged rows (5 %) put a source into quarantine."""

_log = logging.getLogger(__name__)


@contextmanager
def blaming_source(name: str, doing: str) -> Iterator[None]:
    """Turn what the code of the source ``name`` raises into a RewardError that names what failed (``doing``)."""
    try:
        yield
    except RewardError:
        raise
    except Exception as error:  # a source is code of others, or a model's client: it may raise anything
        raise RewardError(
            f"{SOURCE}{name}: {doing} raised {type(error).__name__}: {briefly(error)}; mend the source and publish it "
            "again"
        ) from error


class SourceSession:
    """A source at work on ``slots`` environment slots: a RewardSession around the source's own.

    Where more than MAX_ABSTAINS of the last WINDOW rows could not be judged, the source is in quarantine: its session
    is closed, every row abstains and earns nothing, and what is shown stays as it was until the slot's episode ends.

    Attributes:
        id, needs: the source's.
        abstains: rows that could not be judged so far, those in quarantine left out.
        quarantined: whether the source is in quarantine.

    Raises:
        RewardError: the source cannot be opened; from ``look``: its session raised, answered arrays of another shape,
            or shows NaN or infinities.
    """

    def __init__(self, source: RewardSource, slots: int) -> None:
        self.id, self.needs = source.id, source.needs
        with blaming_source(self.id, "opening it"):
            self._session = source.open(slots)
            self._blank = blank(source.shows)
        self._shown = np.tile(self._blank, (slots, 1))
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._reason = ""
        self.abstains = 0
        self.quarantined = False

    @property
    def counts(self) -> dict[str, int]:
        """What the source's session counts, and ``quarantined``: 1 if it is in quarantine."""
        return {**self._session.counts, "quarantined": int(self.quarantined)}

    def look(self, seen: Seen) -> Judged:
        """Have M rows judged. A TaskError of the source's session is raised as it is."""
        if self.quarantined:
            return self._abstaining(seen)
        try:
            judged = self._session.look(seen)
            self._check(judged, len(seen.slots))
        except (RewardError, TaskError):
            raise
        except Exception as error:  # as in blaming_source, without the time that a context manager takes
            raise RewardError(
                f"{SOURCE}{self.id}: judging raised {type(error).__name__}: {briefly(error)}; mend the source, and "
                "have it abstain from what it cannot judge"
            ) from error
        self._shown[seen.slots] = judged.shown
        self._note(judged.abstained, judged.reason)
        return judged

    def close(self) -> None:
        """Close the source's session; harmless when called twice. What that raises is logged: nothing depends on it."""
        try:
            self._session.close()
        except Exception:  # a source is code of others; what it would pay next matters no more
            _log.exception("reward %s could not be closed", self.id)

    def _abstaining(self, seen: Seen) -> Judged:
        self._shown[seen.slots[seen.began]] = self._blank
        rows = len(seen.slots)
        return Judged(np.zeros(rows), self._shown[seen.slots], np.ones(rows, dtype=bool))

    def _check(self, judged: Judged, rows: int) -> None:
        found = judged.reward.shape, judged.shown.shape, judged.abstained.shape
        asked = (rows,), (rows, self._shown.shape[1]), (rows,)
        if found != asked:
            raise RewardError(
                f"{SOURCE}{self.id} answered reward, shown and abstained of the shapes {found} instead of {asked}: "
                "mend its session's look()"
            )
        if not np.isfinite(judged.shown).all():
            raise RewardError(f"{SOURCE}{self.id} shows NaN or an infinity: mend its session's look()")

    def _note(self, abstained: NDArray[np.bool_], reason: str) -> None:
        """Count the abstains among these rows; too many of them lead to quarantine."""
        self._recent.extend(abstained.tolist())
        if abstained.any():
            self.abstains += int(abstained.sum())
            self._reason = reason or self._reason
            if sum(self._recent) > MAX_ABSTAINS:
                self._quarantine()

    def _quarantine(self) -> None:
        self.quarantined = True
        self.close()
        _log.warning(
            "reward %s could not judge %d of the last %d frames and earns nothing more; the last reason: %s",
            *(self.id, sum(self._recent), len(self._recent), self._reason),
        )
