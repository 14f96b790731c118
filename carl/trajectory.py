"""Trajectory: one recorded episode; TrajectoryStore: many of them as Parquet under any ``pyarrow.fs`` URI."""

import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from carl.errors import StoreError
from carl.progress import Progress, silent
from carl.task import Frame


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One episode of T steps.

    Attributes:
        frames: ``uint8[T + 1, H, W, 3]``; the first is the initial frame, the last that of the final step, taken
            before any reset.
        actions: ``[T]`` or ``[T, A]``.
        rewards: ``float64[T]``, the environment's own.
        terminated, truncated: how the episode ended; neither when play was cut.
        success: the task's word on it.
        seed: what the environment was reset with.
        source: "expert", "random", or what else recorded it.
        events: oracle events ``bool[T + 1]`` by name, or empty; for measuring only.
    """

    frames: Frame
    actions: NDArray[Any]
    rewards: NDArray[np.float64]
    terminated: bool
    truncated: bool
    success: bool
    seed: int
    source: str
    events: dict[str, NDArray[np.bool_]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.actions)


class Reel:
    """Copies of an episode's frames in one array that grows in place; stacking a list would hold each frame twice."""

    ROOM = 64
    """Frames by which it grows."""

    def __init__(self) -> None:
        self._frames: Frame = np.empty((0, 0, 0, 3), np.uint8)
        self._count = 0

    def add(self, frame: Frame) -> None:
        """Copy ``uint8[H, W, 3]``; raises ValueError if it has another size than the first."""
        if not self._count:
            self._frames = np.empty((0, *frame.shape), np.uint8)
        elif frame.shape != self._frames.shape[1:]:
            raise ValueError(f"a frame is {list(frame.shape)} where the first one was {list(self._frames.shape[1:])}")
        if self._count == len(self._frames):
            self._frames.resize((self._count + self.ROOM, *frame.shape), refcheck=False)  # nobody else has it yet
        self._frames[self._count] = frame
        self._count += 1

    def frames(self) -> Frame:
        """All of them, ``uint8[T, H, W, 3]``; ends the reel."""
        frames, self._frames = self._frames, np.empty((0, 0, 0, 3), np.uint8)
        frames.resize((self._count, *frames.shape[1:]), refcheck=False)
        self._count = 0
        return frames


MANIFEST = "manifest.json"
FORMAT = 1
EVENT = "event:"
"""Prefix of the columns that hold oracle events."""

METADATA = b"carl"
ONE_LAYOUT = "a store holds episodes of one task, recorded the same way"
PAGE_BYTES = 8 << 20
"""Longest Parquet page: consecutive frames in one page compress together."""


class Part(BaseModel):
    """One Parquet file of a store, as the manifest lists it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    bytes: int
    footer_sha256: str
    layout: str
    """Digest of the schema: frame shape, action type, events. Equal in all parts of a store."""

    lengths: tuple[int, ...]
    """Steps of each episode; episode i is row group i, with one row more."""


class Manifest(BaseModel):
    """What a complete store consists of. Written last, so that a store without one is unfinished."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    episodes: int
    parts: tuple[Part, ...]


class TrajectoryStore:
    """Trajectories as Parquet files: an episode is a row group, a frame is a row (T + 1 rows for T steps).

    Columns: ``frame`` (raw bytes), ``action`` and ``reward`` (of the step taken from that frame; null in the last
    row), ``terminated``, ``truncated`` and ``success`` (true in the last row only), ``seed``, ``source``, and
    ``event:<name>`` for each oracle event. Frame shape and action type are in the schema's metadata. Pages carry
    checksums, and the manifest holds the size and footer digest of every file: whatever is missing, cut short or
    altered raises StoreError with the file's name.

    Args:
        uri: a local path or whatever ``pyarrow.fs.FileSystem.from_uri`` takes.
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
            self._fs, self._root = pa.fs.LocalFileSystem(), str(Path(self.uri).absolute())

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
            raise StoreError(f"{self.uri} already holds trajectories; give another place, or say to replace them")

    def write_part(self, trajectories: Iterable[Trajectory], progress: Progress = silent) -> Part:
        """Write one Parquet file, which counts once ``finish`` lists it; several processes may do so at once."""
        tables = map(to_table, trajectories)
        first = next(tables, None)
        if first is None:
            raise StoreError(f"there are no trajectories to write to {self.uri}")
        name, lengths = f"part-{uuid.uuid4().hex}.parquet", []
        path = self._path(name)
        with store_errors(path):
            self._fs.create_dir(self._root, recursive=True)
            with self._fs.open_output_stream(path) as file, _writer(file, first.schema) as writer:
                for table in chain([first], tables):
                    _check_layout(table.schema, first.schema)
                    writer.write_table(table, row_group_size=table.num_rows)
                    lengths.append(table.num_rows - 1)
                    progress("write trajectories", len(lengths))
            size, digest = self._measure(path)
        layout = hashlib.sha256(first.schema.serialize()).hexdigest()
        return Part(name=name, bytes=size, footer_sha256=digest, layout=layout, lengths=tuple(lengths))

    def finish(self, parts: Sequence[Part], replace: bool = False) -> None:
        """Declare the store complete: its episodes are those of ``parts``, in that order; raises StoreError.

        Replacing is atomic where the file system renames atomically: readers see the old store or the new one.
        """
        self.check_vacant(replace)
        if len({part.layout for part in parts}) != 1:
            raise StoreError(f"the parts for {self.uri} differ in frame shape, action type or events; {ONE_LAYOUT}")
        manifest = Manifest(format=FORMAT, episodes=sum(len(part.lengths) for part in parts), parts=tuple(parts))
        path = self._path(MANIFEST)
        with store_errors(path):
            with self._fs.open_output_stream(path + ".new") as file:
                file.write(manifest.model_dump_json(indent=1).encode())
            self._fs.move(path + ".new", path)
            self._delete_parts_except({part.name for part in parts})
        self.__dict__.pop("manifest", None)

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
            if manifest.format != FORMAT:
                raise StoreError(f"{path} has format {manifest.format}, this version reads {FORMAT}; {self._anew}")
            if not manifest.parts or manifest.episodes != sum(len(part.lengths) for part in manifest.parts):
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
        """Size in bytes, and SHA-256 of the Parquet footer, which says where every page of the file is."""
        with self._fs.open_input_file(path) as file:
            size = file.size()
            file.seek(max(size - 8, 0))
            footer = int.from_bytes(file.read(4), "little") + 8
            file.seek(max(size - footer, 0))
            return size, hashlib.sha256(file.read()).hexdigest()

    def read(self, indices: Sequence[int] | None = None, progress: Progress = silent) -> list[Trajectory]:
        """Whole episodes, all of them or those at ``indices``, in that order; their frames are read-only."""
        return [from_table(table) for table in self._tables(indices, None, progress)]

    def read_columns(
        self, columns: Sequence[str], indices: Sequence[int] | None = None, progress: Progress = silent
    ) -> list[dict[str, NDArray[Any]]]:
        """For each episode its ``columns`` alone, without touching the others.

        ``action`` and ``reward`` have T rows, all others T + 1.
        """
        return [{name: decode(table, name) for name in columns} for table in self._tables(indices, columns, progress)]

    def __iter__(self) -> Iterator[Trajectory]:
        """Episode after episode, one in memory at a time."""
        return (from_table(table) for table in self._tables(None, None, silent))

    def _tables(
        self, indices: Sequence[int] | None, columns: Sequence[str] | None, progress: Progress
    ) -> Iterator[pa.Table]:
        places = [(part.name, group) for part in self.manifest.parts for group in range(len(part.lengths))]
        wanted = range(len(places)) if indices is None else indices
        opened: tuple[str, pq.ParquetFile] | None = None
        for done, index in enumerate(wanted):
            name, group = places[index]
            with store_errors(self._path(name)):
                if opened is None or opened[0] != name:
                    file = self._fs.open_input_file(self._path(name))
                    opened = name, pq.ParquetFile(file, page_checksum_verification=True)
                table = opened[1].read_row_group(group, columns=columns)
            missing = set(columns or ()) - set(table.column_names)
            if missing:
                raise StoreError(f"{self._path(name)} has no column {sorted(missing)[0]!r}")
            yield table
            progress("read trajectories", done + 1, len(wanted))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if self._root else name


@contextmanager
def store_errors(path: str) -> Iterator[None]:
    """Turn what reading or writing ``path`` raises into a StoreError that names it."""
    try:
        yield
    except (OSError, pa.ArrowException, ValidationError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} cannot be used, it may be missing, cut short or altered: {error}") from error


def _writer(file: Any, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        file,
        schema,
        compression="zstd",
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
        data_page_size=PAGE_BYTES,
    )


def _check_layout(schema: pa.Schema, first: pa.Schema) -> None:
    if not schema.equals(first, check_metadata=True):
        raise StoreError(
            f"an episode has other frames, actions or events ({schema.metadata[METADATA].decode()}) than the first "
            f"({first.metadata[METADATA].decode()}); {ONE_LAYOUT}"
        )


def to_table(trajectory: Trajectory) -> pa.Table:
    """One episode as T + 1 rows."""
    steps, frames, actions = len(trajectory), trajectory.frames, trajectory.actions
    if frames.dtype != np.uint8 or len(frames) != steps + 1 or len(trajectory.rewards) != steps:
        raise StoreError(
            f"the trajectory of seed {trajectory.seed} has {steps} actions, {len(trajectory.rewards)} rewards and "
            f"frames {frames.dtype}{list(frames.shape)}; T steps need T + 1 frames of uint8"
        )
    last = np.arange(steps + 1) == steps
    columns = {
        "frame": _bytes_column(frames),
        "action": _action_column(actions),
        "reward": pa.array(np.append(trajectory.rewards, 0.0), pa.float64(), mask=last),
        "terminated": pa.array(last & trajectory.terminated),
        "truncated": pa.array(last & trajectory.truncated),
        "success": pa.array(last & trajectory.success),
        "seed": pa.array(np.full(steps + 1, trajectory.seed, dtype=np.int64)),
        "source": pa.array([trajectory.source] * (steps + 1)),
        **{EVENT + name: pa.array(np.asarray(event, dtype=bool)) for name, event in trajectory.events.items()},
    }
    shapes = {"frame": frames.shape[1:], "action": actions.shape[1:], "action_dtype": actions.dtype.str}
    return pa.table(columns, metadata={METADATA: json.dumps(shapes)})


def _bytes_column(frames: Frame) -> pa.Array:
    data = np.ascontiguousarray(frames)
    return pa.Array.from_buffers(pa.binary(data[0].nbytes), len(data), [None, pa.py_buffer(data)])


def _action_column(actions: NDArray[Any]) -> pa.Array:
    """The actions and, for the last frame, a null."""
    flat = pa.array(np.ascontiguousarray(actions).reshape(-1))
    if actions.ndim > 1:
        flat = pa.FixedSizeListArray.from_arrays(flat, int(np.prod(actions.shape[1:])))
    return pa.concat_arrays([flat, pa.nulls(1, flat.type)])


def from_table(table: pa.Table) -> Trajectory:
    """The episode that ``to_table`` wrote."""
    events = [name for name in table.column_names if name.startswith(EVENT)]
    return Trajectory(
        frames=decode(table, "frame"),
        actions=decode(table, "action"),
        rewards=decode(table, "reward"),
        terminated=bool(table["terminated"][-1].as_py()),
        truncated=bool(table["truncated"][-1].as_py()),
        success=bool(table["success"][-1].as_py()),
        seed=int(table["seed"][0].as_py()),
        source=str(table["source"][0].as_py()),
        events={name.removeprefix(EVENT): decode(table, name) for name in events},
    )


def decode(table: pa.Table, name: str) -> NDArray[Any]:
    """One column of one episode as an array."""
    shapes: Mapping[str, Any] = json.loads(table.schema.metadata[METADATA])
    column = table[name].combine_chunks()
    if name == "frame":
        size = column.type.byte_width
        data = np.frombuffer(column.buffers()[1], np.uint8, len(column) * size, column.offset * size)
        data.flags.writeable = False
        return data.reshape(len(column), *shapes["frame"])
    if name not in ("action", "reward"):
        return np.asarray(column.to_numpy(zero_copy_only=False))
    column = column.slice(0, len(column) - 1)
    if name == "action" and shapes["action"]:
        flat = column.flatten().to_numpy(zero_copy_only=False)
        return np.asarray(flat, dtype=shapes["action_dtype"]).reshape(len(column), *shapes["action"])
    dtype = shapes["action_dtype"] if name == "action" else np.float64
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=dtype)
