"""Checkpoints that are whole or absent: RLlib's folder and our own counters, put in place by one rename.

The counters hold a digest of RLlib's files. A checkpoint that is not what was saved is passed over for the one before.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter

from carl.artefacts import PUBLISHED, STATE, read_json, whole
from carl.errors import CarlError, StoreError
from carl.training.sources import Sources

ALGORITHM = "algorithm"
DIGEST, SOURCES = "sha256", "sources_sha256"
"""Keys in STATE: the digest of the files in ALGORITHM, and that of PUBLISHED. Checkpoints of older versions of carl
have neither, and those of a training whose source was never replaced lack the second."""

DRAFT = "draft"
"""Folder of a checkpoint that is being written."""

KEPT = 2
"""Checkpoints kept; older ones are removed."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progressed:
    """How far a training has come.

    Attributes:
        env_steps, episodes, succeeded, iterations: counted since its very start; episodes those that ended.
        counts: what PaidVectorEnv counted since then, by name: judged, abstains, and the counts of its sessions.
        abstaining: iterations in which more than ``carl.training.abstains.MAX_SHARE`` of the judged frames abstained.
        stale_steps: learned from since then, though paid by an older version than the newest at that time.
        rework_steps: environment steps that were trained after a checkpoint, lost in a stop and trained again.
        seconds: wall-clock time spent sampling and learning; neither evaluation nor start-up counts.
        generation: how often the training was resumed.
        reward_version, source_id: what paid last.
        provenance: where that source came from; None if it does not say.
        curve_points: lines of the learning curve that belong to it.
        solved: it stopped early, at the success rate that was asked for.
    """

    env_steps: int = 0
    episodes: int = 0
    succeeded: int = 0
    iterations: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    abstaining: int = 0
    stale_steps: int = 0
    rework_steps: int = 0
    seconds: float = 0.0
    generation: int = 0
    reward_version: int = 0
    source_id: str | None = None
    provenance: Mapping[str, Any] | None = None
    curve_points: int = 0
    solved: bool = False

    @property
    def abstains(self) -> int:
        """Frames that could not be judged."""
        return self.counts.get("abstains", 0)

    @property
    def cut(self) -> int:
        """Episodes that were truncated because the environment would not have ended them."""
        return self.counts.get("cut", 0)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises ConfigError that names the file."""
        content = {key: value for key, value in read_json(path, dict).items() if key not in (DIGEST, SOURCES)}
        with whole(str(path)):
            if unknown := content.keys() - {one.name for one in fields(cls)}:
                raise ValueError(f"{min(unknown)} is unknown")
            if "env_steps" not in content:  # what else is missing is younger than this file
                raise ValueError("env_steps is missing")
            return TypeAdapter(cls).validate_python(content)


class Checkpoints:
    """The numbered checkpoints of one training, and its learning curve, to which each adds its first points."""

    def __init__(self, directory: Path, curve: Path | None = None) -> None:
        self._directory = directory.resolve()
        self._curve = curve

    def latest(self) -> Path | None:
        """The newest checkpoint that can be used, or None; those that cannot are warned of and passed over."""
        for path in self._newest_first():
            problem = self.problem(path)
            if problem is None:
                return path
            _log.warning("%s is passed over, and the training goes on from before it: %s", path, problem)
        return None

    def newest(self) -> Path | None:
        """As ``latest``, without warnings."""
        return next((path for path in self._newest_first() if self.problem(path) is None), None)

    def problem(self, path: Path) -> str | None:
        """Why a checkpoint cannot be used, or None; raises ConfigError if the curve cannot be read."""
        try:
            check(path)
            points = Progressed.read(path / STATE).curve_points
        except CarlError as error:
            return str(error)
        if self._curve is None or points <= _lines(self._curve):
            return None
        return f"{self._curve} lacks points of its {points}"

    def _newest_first(self) -> Iterator[Path]:
        found = (path for path in self._directory.glob("[0-9]*") if (path / STATE).is_file())
        return iter(sorted(found, reverse=True))

    def save(self, algorithm: Any, progressed: Progressed, sources: Sources | None = None) -> Path:
        """Write a checkpoint, with those of ``sources`` that a teacher published; then remove those that are older than
        the last KEPT."""
        draft = self._directory / DRAFT
        shutil.rmtree(draft, ignore_errors=True)
        path = self._directory / f"{progressed.env_steps:012d}"
        try:
            algorithm.save_to_path(draft / ALGORITHM)
            digests = {DIGEST: _digest(draft / ALGORITHM)}
            if sources and sources.published:
                (draft / PUBLISHED).write_bytes(packed := sources.packed())
                digests[SOURCES] = hashlib.sha256(packed).hexdigest()
            (draft / STATE).write_text(json.dumps(asdict(progressed) | digests))
            # One that is there already was written at the same step by this training: the new one is at least as far.
            shutil.rmtree(path, ignore_errors=True)
            os.replace(draft, path)
        finally:
            shutil.rmtree(draft, ignore_errors=True)  # a full disk is in need of the room
        there = sorted(self._directory.glob("[0-9]*"))
        later = [one for one in there if one.name > path.name]  # of a training that was gone back on
        for old in [*later, *there[: len(there) - len(later) - KEPT]]:
            shutil.rmtree(old, ignore_errors=True)
        return path


def check(checkpoint: Path) -> None:
    """Raise StoreError if the files of a checkpoint are not those that were saved, ConfigError if STATE is damaged."""
    state = read_json(checkpoint / STATE, dict)
    digest, sources = state.get(DIGEST), state.get(SOURCES)
    with whole(str(checkpoint)):
        same = digest is None or digest == _digest(checkpoint / ALGORITHM)
        same &= sources is None or sources == hashlib.sha256((checkpoint / PUBLISHED).read_bytes()).hexdigest()
    if not same:
        raise StoreError(f"{checkpoint} is not what was saved: files are missing, cut short or altered; delete it")


def _digest(folder: Path) -> str:
    """SHA-256 over the names and contents of all files below ``folder``."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    stats = [path.stat() for path in paths]
    return _digest_of(folder, tuple(zip(paths, ((one.st_size, one.st_mtime_ns) for one in stats), strict=True)))


@lru_cache(maxsize=32)
def _digest_of(folder: Path, files: tuple[tuple[Path, tuple[int, int]], ...]) -> str:
    """Read once as long as sizes and times of change stay."""
    digest = hashlib.sha256()
    for path, _ in files:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def _lines(path: Path) -> int:
    with whole(str(path)):
        return path.read_bytes().count(b"\n") if path.exists() else 0
