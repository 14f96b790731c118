"""The sources that a training is paid by: the run's own, and what its teacher published since. They survive a stop."""

import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carl.artefacts import PUBLISHED
from carl.errors import StoreError, briefly
from carl.rewards.source import RewardSource


@dataclass(frozen=True)
class Sources:
    """The run's own source, and those that a teacher published in its place and that may still pay.

    Attributes:
        own: the run's, which the first version is; None where nothing is looked at.
        published: (version, source), oldest first.
    """

    own: RewardSource | None
    published: tuple[tuple[int, RewardSource], ...] = ()

    def add(self, version: int, source: RewardSource) -> "Sources":
        """These, and the one that was published under ``version``."""
        return Sources(self.own, (*self.published, (version, source)))

    def at(self, version: int) -> RewardSource | None:
        """The source that pays under ``version``: the newest that was published by then, or else the own one."""
        return next((source for number, source in reversed(self.published) if number <= version), self.own)

    def alive(self, version: int, refused: Iterable[int] = ()) -> "Sources":
        """Those that a checkpoint needs where ``version`` paid last: its source, and newer ones unless ``refused``."""
        gone = set(refused)
        newer = [(number, source) for number, source in self.published if number > version and number not in gone]
        paying = [(number, source) for number, source in self.published if number <= version][-1:]
        return Sources(self.own, (*paying, *newer))

    def in_turn(self, version: int) -> list[RewardSource]:
        """What is published to go on where ``version`` paid last, oldest first: the newest that opens then pays."""
        first = self.at(version)
        newer = [source for number, source in self.published if number > version]
        return [*([first] if first is not None else []), *newer]

    def packed(self) -> bytes:
        """What was published, and the id of the own source, pickled."""
        from ray import cloudpickle

        dumps: Any = cloudpickle.dumps  # Ray leaves it untyped
        content: bytes = dumps((self.own.id if self.own else None, self.published))
        return content


def sources_of(checkpoint: Path | None, own: RewardSource | None) -> Sources:
    """The sources that ``checkpoint`` was saved with. None were published where ``own`` is another source by now, in
    a checkpoint of an older carl, and without a checkpoint.

    Raises StoreError for a source of a package that is gone or another by now.
    """
    path = checkpoint / PUBLISHED if checkpoint else None
    if path is None or not path.exists():
        return Sources(own)
    try:
        origin, published = pickle.loads(path.read_bytes())
    except Exception as error:  # unpickling raises whatever it stumbles over
        raise StoreError(
            f"cannot read the reward that {checkpoint} was paid by ({type(error).__name__}: {briefly(error)}): "
            "install what it was made with, or train anew in another run directory"
        ) from error
    return Sources(own, published if own is not None and origin == own.id else ())
