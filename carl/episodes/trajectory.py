"""Trajectory: one recorded episode; TrajectoryStore: many of them as Parquet under any ``pyarrow.fs`` URI."""

import hashlib
import os
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, chain
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from carl.artefacts import MANIFEST, NEW
from carl.console.progress import Progress, silent
from carl.episodes import columns as stored
from carl.episodes.frames import Frames, LazyFrames, rows_of
from carl.errors import StoreError, briefly


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One episode of T steps.

    Attributes:
        frames: ``uint8[T + 1, H, W, 3]``, which may be read as they are looked at; the first is the initial frame, the
            last that of the final step, taken before any reset.
        actions: ``[T]`` or ``[T, A]``.
        rewards: ``float64[T]``, the environment's own.
        terminated, truncated: how the episode ended; neither when play was cut.
        success: whether the task was solved, by its own rule.
        seed: what the environment was reset with.
        role: who played: "expert", "random", "policy", "person", "demonstration", ...
        events: oracle events ``bool[T + 1]`` by name, or empty; for measuring only.
        step_seconds: mean wall-clock time of a step of the environment with its picture while this was recorded, or in
            its part of a store; None if it was not measured.
    """

    frames: Frames
    actions: NDArray[Any]
    rewards: NDArray[np.float64]
    terminated: bool
    truncated: bool
    success: bool
    seed: int
    role: str
    events: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    step_seconds: float | None = None

    def __len__(self) -> int:
        return len(self.actions)

    @cached_property
    def digests(self) -> NDArray[np.uint64]:
        """``uint64[T + 1]``: XXH3 of each frame's bytes.

        Among a million frames two that differ have the same one with a chance of about one in forty million.
        """
        return np.array(
            [
                xxhash.xxh3_64_intdigest(np.ascontiguousarray(self.frames[step]).data)
                for step in range(len(self.frames))
            ],
            dtype=np.uint64,
        )


FORMATS = (1, 2)
"""What can be read; the last is what is written. In format 1 an episode is one row group."""

OPEN_FILES = 64
"""Files of a store that are kept open: verification looks at 64 episodes side by side."""


class Part(BaseModel):
    """One Parquet file of a store, as the manifest lists it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    bytes: int
    footer_sha256: str
    layout: str
    """Digest of the schema: frame shape, action type, events. Equal in all parts of a store."""

    lengths: tuple[int, ...]
    """Steps of each episode, which has one row more."""

    group_rows: int | None = None
    """Rows of a row group: an episode is as many full ones as it fills, and one with the rest. None: it is one."""

    step_seconds: float | None = None
    """Mean wall-clock time of a step of the environment with its picture, the median over the episodes; None: it was
    not measured."""

    def groups(self) -> list[range]:
        """The row groups of each episode."""
        ends = list(accumulate(-(-(length + 1) // (self.group_rows or length + 1)) for length in self.lengths))
        return [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]


class Manifest(BaseModel):
    """What a complete store consists of. Written last, so that a store without one is unfinished."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    episodes: int
    parts: tuple[Part, ...]
    failed: int = 0
    """Episodes that were no success where only successes are kept, and were left out."""

    missing: str = ""
    """Why there is no episode, where there is none."""


class _Place(NamedTuple):
    """Where an episode lies: its file, its row groups, and its steps."""

    part: Part
    groups: range
    steps: int


class _File(NamedTuple):
    """A part that is open, and the names of its columns."""

    parquet: pq.ParquetFile
    columns: frozenset[str]


class TrajectoryStore:
    """Trajectories as Parquet files: a frame is a row (T + 1 rows for T steps), an episode is a few row groups.

    It is a sequence of trajectories whose frames are read as they are looked at, a few MB at a time.

    Columns: ``frame`` (raw bytes), ``action`` and ``reward`` (of the step taken from that frame; null in the last
    row), ``terminated``, ``truncated`` and ``success`` (true in the last row only), ``seed``, ``source``, and
    ``event:<name>`` for each oracle event; ``source`` is the trajectory's role. Frame shape and action type are in the
    schema's metadata. Pages carry checksums, and the manifest holds the size and footer digest of every file: a file
    that is missing, cut short or altered raises StoreError with its name.

    Args:
        uri: a local path, or a URI that ``pyarrow.fs.FileSystem.from_uri`` takes.
        filesystem: a pyarrow file system in which ``uri`` is a path, instead.
    """

    def __init__(self, uri: str | Path, filesystem: pa.fs.FileSystem | None = None) -> None:
        self.uri = str(uri)
        if filesystem is not None:
            self._fs, self._root = filesystem, self.uri.rstrip("/")
        elif "://" in self.uri:
            with store_errors(self.uri):
                self._fs, self._root = pa.fs.FileSystem.from_uri(self.uri)
        else:
            self._fs, self._root = pa.fs.LocalFileSystem(), str(Path(os.path.expanduser(self.uri)).absolute())
        self._open: dict[str, _File] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}

    def __len__(self) -> int:
        """Episodes; raises StoreError if the store is not complete."""
        return self.manifest.episodes

    def exists(self) -> bool:
        """Whether a store was finished here."""
        with store_errors(self.uri):
            return bool(self._fs.get_file_info(self._path(MANIFEST)).type == pa.fs.FileType.File)

    # Writing

    def write(self, trajectories: Iterable[Trajectory], progress: Progress = silent, replace: bool = False) -> None:
        """Write one part with all of ``trajectories``, then the manifest; raises StoreError."""
        self.check_vacant(replace)
        self.finish([self.write_part(trajectories, progress)], replace)

    def check_vacant(self, replace: bool = False) -> None:
        """Raise StoreError if a finished store is here and is not to be replaced."""
        if not replace and self.exists():
            raise StoreError(f"{self.uri} already holds trajectories; give another place, or replace=True")

    def append(self, trajectories: Iterable[Trajectory]) -> None:
        """Add episodes to those that are here, if any are; raises StoreError. For one writer at a time."""
        before = self.manifest if self.exists() else None
        parts = (*(before.parts if before else ()), self.write_part(trajectories))
        self.finish(parts, replace=True, failed=before.failed if before else 0)

    def write_part(self, trajectories: Iterable[Trajectory], progress: Progress = silent) -> Part:
        """Write one Parquet file, which counts once ``finish`` lists it; several processes may do so at once.

        Of each episode a few MB of frames are in memory at a time, if that is so in the trajectory.
        """
        episodes = iter(trajectories)
        first = next(episodes, None)
        if first is None:
            raise StoreError(f"there are no trajectories to write to {self.uri}")
        name, lengths, schema = f"part-{uuid.uuid4().hex}.parquet", [], stored.schema_of(first)
        paces: list[float] = []
        rows = rows_of(first.frames.shape[1:])
        path = self._path(name)
        with store_errors(path):
            self._fs.create_dir(self._root, recursive=True)
            with self._fs.open_output_stream(path) as file, stored.writer(file, schema) as writer:
                for trajectory in chain([first], episodes):
                    for table in stored.tables(trajectory, rows):
                        stored.check_layout(table.schema, schema)
                        writer.write_table(table, row_group_size=table.num_rows)
                    lengths.append(len(trajectory))
                    paces += [] if trajectory.step_seconds is None else [trajectory.step_seconds]
                    progress("write trajectories", len(lengths))
            size, digest = self._measure(path)
        layout = hashlib.sha256(schema.serialize()).hexdigest()
        return Part(
            name=name,
            bytes=size,
            footer_sha256=digest,
            layout=layout,
            lengths=tuple(lengths),
            group_rows=rows,
            step_seconds=median(paces) if paces else None,
        )

    def finish(self, parts: Sequence[Part], replace: bool = False, failed: int = 0, missing: str = "") -> None:
        """Declare the store complete: its episodes are those of ``parts``, in that order; raises StoreError.

        ``failed`` episodes were left out; ``missing`` says why there are no parts, if there are none. Replacing is
        atomic where the file system renames atomically: readers see the old store or the new one.
        """
        self.check_vacant(replace)
        if len({part.layout for part in parts}) != (0 if missing else 1):
            raise StoreError(
                f"the parts for {self.uri} differ in frame shape, action type or events; {stored.ONE_LAYOUT}"
            )
        episodes = sum(len(part.lengths) for part in parts)
        manifest = Manifest(format=FORMATS[-1], episodes=episodes, parts=tuple(parts), failed=failed, missing=missing)
        path = self._path(MANIFEST)
        with store_errors(path):
            self._fs.create_dir(self._root, recursive=True)
            with self._fs.open_output_stream(path + NEW) as file:
                file.write(manifest.model_dump_json(indent=1).encode())
            self._fs.move(path + NEW, path)
            self._delete_parts_except({part.name for part in parts})
        self.__dict__.pop("manifest", None)
        self.__dict__.pop("_places", None)
        self._open.clear()

    def _delete_parts_except(self, names: set[str]) -> None:
        for info in self._fs.get_file_info(pa.fs.FileSelector(self._root)):
            if info.base_name.startswith("part-") and info.base_name not in names:
                self._fs.delete_file(info.path)

    # Reading

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest, after every file it lists was found whole; raises StoreError."""
        path = self._path(MANIFEST)
        if not self.exists():
            raise StoreError(f"{self.uri} holds no finished trajectory store ({path} is missing); collect it again")
        with store_errors(path), self._fs.open_input_stream(path) as file:
            manifest = Manifest.model_validate_json(file.read())
            if manifest.format not in FORMATS:
                raise StoreError(
                    f"{path} has format {manifest.format}, this version reads up to {FORMATS[-1]}; {self._anew}"
                )
            if bool(manifest.parts) == bool(manifest.missing) or manifest.episodes != sum(
                len(part.lengths) for part in manifest.parts
            ):
                raise StoreError(f"{path} contradicts itself about the number of episodes; {self._anew}")
        for part in manifest.parts:
            self._check(part)
        return manifest

    def _check(self, part: Part) -> None:
        path = self._path(part.name)
        with store_errors(path):
            if self._measure(path) != (part.bytes, part.footer_sha256):
                raise StoreError(f"{path} is not what was written: cut short or altered; {self._anew}")

    @property
    def _anew(self) -> str:
        return f"delete {self.uri}, and collect it again"

    def _measure(self, path: str) -> tuple[int, str]:
        """Size in bytes, and SHA-256 of the Parquet footer, which locates every page of the file."""
        with self._fs.open_input_file(path) as file:
            size = file.size()
            file.seek(max(size - 8, 0))
            footer = int.from_bytes(file.read(4), "little") + 8
            file.seek(max(size - footer, 0))
            return size, hashlib.sha256(file.read()).hexdigest()

    def __getitem__(self, index: int) -> Trajectory:
        """One episode, whose frames are read as they are looked at, and are read-only; raises StoreError, then too."""
        place = self._places[index]
        names = self._file(place.part).columns - {stored.FRAME}
        table = self._table(place, place.groups, names)
        rows = place.part.group_rows or place.steps + 1

        def chunk(number: int) -> Any:
            return stored.decode(self._table(place, [place.groups[number]], [stored.FRAME]), stored.FRAME)

        frames = LazyFrames(place.steps + 1, stored.frame_size(table), rows, chunk)
        return Trajectory(frames=frames, step_seconds=place.part.step_seconds, **stored.fields(table))

    def __iter__(self) -> Iterator[Trajectory]:
        return (self[index] for index in range(len(self)))

    def read(self, indices: Sequence[int] | None = None, progress: Progress = silent) -> list[Trajectory]:
        """Whole episodes in memory, all of them or those at ``indices``, in that order; their frames are read-only."""
        wanted = range(len(self)) if indices is None else indices
        found = []
        for index in wanted:
            trajectory = self[index]
            frames = np.asarray(trajectory.frames)
            frames.flags.writeable = False
            found.append(replace(trajectory, frames=frames))
            progress("read trajectories", len(found), len(wanted))
        return found

    def read_columns(
        self, columns: Sequence[str], indices: Sequence[int] | None = None, progress: Progress = silent
    ) -> list[dict[str, NDArray[Any]]]:
        """For each episode its ``columns`` alone, without touching the others.

        ``action`` and ``reward`` have T rows, all others T + 1.
        """
        wanted = range(len(self)) if indices is None else indices
        found = []
        for index in wanted:
            place = self._places[index]
            table = self._table(place, place.groups, columns)
            found.append({name: stored.decode(table, name) for name in columns})
            progress("read trajectories", len(found), len(wanted))
        return found

    def endings(self, column: str) -> list[Any]:
        """What the last row of each episode holds in a column: how it ended, its seed, its source."""
        return [self._table(place, place.groups[-1:], [column])[column][-1].as_py() for place in self._places]

    @cached_property
    def _places(self) -> list[_Place]:
        return [
            _Place(part, groups, steps)
            for part in self.manifest.parts
            for groups, steps in zip(part.groups(), part.lengths, strict=True)
        ]

    def _table(self, place: _Place, groups: Sequence[int], columns: Collection[str]) -> pa.Table:
        file, path = self._file(place.part), self._path(place.part.name)
        if missing := set(columns) - file.columns:
            raise StoreError(f"{path} has no column {sorted(missing)[0]!r}")
        with store_errors(path):
            return file.parquet.read_row_groups(list(groups), columns=list(columns), use_threads=False)

    def _file(self, part: Part) -> _File:
        """The open file of a part; the one that was opened first is closed if there are too many."""
        if part.name not in self._open:
            if len(self._open) >= OPEN_FILES:
                self._open.pop(next(iter(self._open))).parquet.close(force=True)
            path = self._path(part.name)
            with store_errors(path):
                parquet = pq.ParquetFile(self._fs.open_input_file(path), page_checksum_verification=True)
                self._open[part.name] = _File(parquet, frozenset(parquet.schema_arrow.names))
        return self._open[part.name]

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if self._root else name


@contextmanager
def store_errors(path: str) -> Iterator[None]:
    """Turn what reading or writing ``path`` raises into a StoreError that names it."""
    try:
        yield
    except (OSError, pa.ArrowException, ValidationError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} cannot be used, it may be missing, cut short or altered: {briefly(error)}") from error
