"""Storage: a copy of a run directory under any ``pyarrow.fs`` URI, kept up to date while the run goes on.

Files are copied one by one, each whole or not at all; those that call others complete come last. What is copied half
after a crash is what a run that stopped at that point would have left behind.
"""

import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import pyarrow as pa
import pyarrow.fs

from carl.artefacts import (
    CLAIM,
    CONFIG,
    NEW,
    STAMP,
    TABLE,
    Copied,
    artefact,
    parsed,
    read_json,
    whole,
    write_json,
)
from carl.config import below
from carl.episodes.trajectory import store_errors
from carl.errors import ConfigError, StoreError
from carl.training.checkpoint import ALGORITHM, DRAFT

EVERY_S = 30.0
"""Seconds between two copies, so much may be lost with the machine; what is lost of a training is trained again."""

PATIENCE_S = 300.0
"""How long a run that is over tries to have its last files copied."""

PRUNED = {row.pattern.partition("/")[0] for row in TABLE if row.pruned}
"""What a run may take back, files and folders; all else under the URI is left alone."""

OBJECT_STORES = ("s3", "gcs", "abfs", "py::")
"""Beginnings of the names of file systems where a file appears when it is closed, and a rename is a copy."""

_log = logging.getLogger(__name__)


class Storage:
    """The folder at a ``pyarrow.fs`` URI. Raises ConfigError for any other, and StoreError if it cannot be reached.

    Attributes:
        claim: the token of this process's claim to it (``holding.py``); None if it made none.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.claim: str | None = None
        try:
            self._fs, self._root = pa.fs.FileSystem.from_uri(uri)
        except OSError as error:
            raise StoreError(f"storage={uri} cannot be reached: {error}") from error
        except (pa.ArrowException, ValueError) as error:
            raise ConfigError(f"storage={uri} is not a URI that pyarrow.fs can open: {error}") from error
        self._in_one_go = self._fs.type_name.startswith(OBJECT_STORES)
        self._pushed: dict[str, tuple[int, int] | None] = {}

    @property
    def folder(self) -> Path | None:
        """Its path, if it is on a file system of this machine."""
        return Path(self._root) if self._fs.type_name == "local" else None

    def pull(self, directory: Path) -> None:
        """Copy the run from there to ``directory``, if that holds none.

        Raises ConfigError if it holds another, or the same from before it went further elsewhere; StoreError if
        nothing can be read or written there.
        """
        self.try_writing()
        with store_errors(self.uri):
            there = self._files()
            if there and CONFIG not in there:
                raise ConfigError(f"storage={self.uri} holds something that is not a run; give another URI")
            if there and (directory / CONFIG).exists():
                self._check_run(directory)
                self.check_latest(directory)
            else:
                self._fetch_all(there, directory)
        self._pushed = dict.fromkeys(there - {STAMP})

    def fetch(self, directory: Path) -> None:
        """Copy all files from there to ``directory``; raises ConfigError if that holds another run, and StoreError."""
        with store_errors(self.uri):
            if (directory / CONFIG).exists():
                self._check_run(directory)
            self._fetch_all(self._files(), directory)

    def read(self, name: str) -> str | None:
        """The text of a file; None if there is none. Raises StoreError, and ConfigError if it is not UTF-8."""
        content = self.read_bytes(name)
        with whole(self._where(name)):
            return None if content is None else str(content, "utf-8")

    def read_bytes(self, name: str) -> bytes | None:
        """The content of a file; None if there is none. Raises StoreError."""
        with store_errors(self._where(name)):
            try:
                with self._fs.open_input_stream(self._path(name)) as file:
                    return bytes(file.read())
            except FileNotFoundError:
                return None

    def holds(self, name: str) -> bool:
        """Whether there is such a file, or folder that is not empty."""
        with store_errors(self._where(name)):
            return bool(self._fs.get_file_info(self._path(name)).type != pa.fs.FileType.NotFound)

    def names(self, folder: str) -> list[str]:
        """The names of the files in a folder, sorted; none if there is no such folder."""
        with store_errors(self._where(folder)):
            selector = pa.fs.FileSelector(self._path(folder), allow_not_found=True)
            return sorted(info.base_name for info in self._fs.get_file_info(selector) if info.is_file)

    def changed(self, names: Sequence[str]) -> float:
        """When one of these files was written last, in seconds since 1970; 0 if there is none."""
        with store_errors(self.uri):
            infos = self._fs.get_file_info([self._path(name) for name in names])
        return max((info.mtime_ns or 0) / 1e9 for info in infos)

    def age(self, name: str) -> float:
        """Seconds since a file was written, by the clock of the storage; 0 if it keeps no times."""
        probe = f"{name}-{uuid4().hex}{NEW}"
        self.write(probe, "")
        try:
            now, then = self.changed([probe]), self.changed([name])
        finally:
            self.delete(probe)
        return max(0.0, now - then) if then else 0.0

    def write(self, name: str, text: str) -> None:
        """Write a small file."""
        with store_errors(self.uri):
            self._write(name, text.encode())

    def delete(self, name: str) -> None:
        """Delete a file; nothing if there is none."""
        with store_errors(self.uri), suppress(FileNotFoundError):
            self._fs.delete_file(self._path(name))

    def push(self, directory: Path) -> None:
        """Copy what changed in ``directory`` since the last time, and delete what is gone; raises StoreError."""
        here = dict(_stamped(directory))
        changed = [name for name in _in_order(here) if self._pushed.get(name) != here[name]]
        gone = [name for name in self._pushed if name not in here and name.partition("/")[0] in PRUNED]
        if not changed and not gone:
            return
        with store_errors(self.uri):
            put = [name for name in changed if self._put(directory / name, name)]
            self._pushed |= {name: here[name] for name in put}
            if len(put) == len(changed):  # else what is gone may have no whole successor there yet
                for name in sorted(gone, key=lambda name: artefact(name).copied is not Copied.COMPLETING):
                    self._fs.delete_file(self._path(name))
                    del self._pushed[name]
            write_json(directory / STAMP, {"copies": _copies(directory) + 1})
            self._put(directory / STAMP, STAMP)

    def check_latest(self, directory: Path) -> None:
        """Raise ConfigError if the copy went on without ``directory``, or another process has claimed it."""
        with store_errors(self.uri):
            if self.claim and self._read(CLAIM).get("token", self.claim) != self.claim:
                raise ConfigError(
                    f"storage={self.uri} was taken over by another run: this one renewed its claim too late"
                )
            with whole(self._where(STAMP)):
                there = int(self._read(STAMP).get("copies", 0))
            if there > _copies(directory):
                raise ConfigError(
                    f"storage={self.uri} holds a run that was not copied from {directory}, or went on elsewhere since: "
                    "give another --run-dir to go on from that one, or another URI to keep it and go on from here"
                )

    def try_writing(self) -> None:
        """Raise StoreError if nothing can be written there, before the work and not after it."""
        path = self._path("writable" + NEW)
        with store_errors(self.uri):
            if not self._in_one_go:
                self._fs.create_dir(self._root, recursive=True)
            self._fs.open_output_stream(path).close()
            self._fs.delete_file(path)

    def _check_run(self, directory: Path) -> None:
        theirs, ours = self._read(CONFIG), read_json(directory / CONFIG, dict)
        if [theirs.get(key) for key in ("task", "seed")] != [ours.get(key) for key in ("task", "seed")]:
            raise ConfigError(f"storage={self.uri} holds another run than {directory}; give another URI")

    def _read(self, name: str) -> dict[str, Any]:
        """A JSON file's content, nothing if there is none."""
        content: dict[str, Any] = parsed(self.read(name) or "{}", self._where(name), dict)
        return content

    def _files(self) -> set[str]:
        selector = pa.fs.FileSelector(self._root, recursive=True, allow_not_found=True)
        infos = self._fs.get_file_info(selector)
        names = {info.path.removeprefix(self._root).lstrip("/") for info in infos if info.is_file}
        return {name for name in names if not name.endswith(NEW) and artefact(name).copied is not Copied.NEVER}

    def _fetch_all(self, names: set[str], directory: Path) -> None:
        # The configuration comes last: a directory that has it is a run, and what it lacks is deleted from the copy.
        for name in sorted(names, key=lambda name: name == CONFIG):
            to = directory / name
            to.parent.mkdir(parents=True, exist_ok=True)
            draft = to.with_name(to.name + NEW)
            with self._fs.open_input_stream(self._path(name)) as source, draft.open("wb") as target:
                shutil.copyfileobj(source, target)
            draft.replace(to)

    def _put(self, path: Path, name: str) -> bool:
        """Copy a file; False if it is gone, such as an older checkpoint's."""
        try:
            content = path.read_bytes()  # first, since an object store keeps what was written until an error
        except FileNotFoundError:
            return False
        self._write(name, content)
        return True

    def _write(self, name: str, content: bytes) -> None:
        target = self._path(name)
        draft = target if self._in_one_go else target + NEW
        if not self._in_one_go:
            self._fs.create_dir(target.rpartition("/")[0], recursive=True)
        with self._fs.open_output_stream(draft) as file:
            file.write(content)
        if draft != target:
            self._fs.move(draft, target)

    def _where(self, name: str) -> str:
        """The path of a file on this machine, or its URI."""
        return str(self.folder / name) if self.folder else below(self.uri, name)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def _stamped(directory: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """The files to copy that are whole, with size and time of change; what vanishes meanwhile is left out."""
    for folder, folders, files in os.walk(directory):
        folders[:] = [name for name in folders if name != DRAFT]
        for path in (Path(folder, name) for name in files if not name.endswith(NEW)):
            name = path.relative_to(directory).as_posix()
            if artefact(name).copied not in (Copied.NEVER, Copied.APART):
                with suppress(FileNotFoundError):
                    status = path.stat()
                    yield name, (status.st_size, status.st_mtime_ns)


def _copies(directory: Path) -> int:
    path = directory / STAMP
    if not path.exists():
        return 0
    with whole(str(path)):
        return int(read_json(path, dict)["copies"])


def _in_order(names: Any) -> list[str]:
    """As the table of files has them copied, and by folder; all files of a checkpoint are one folder's."""

    def rank(name: str) -> tuple[bool, bool, str, bool, str]:
        copied, folder = artefact(name).copied, name.rpartition("/")[0]
        checkpoint = folder.partition(f"/{ALGORITHM}")[0]
        first, last = copied is Copied.FIRST, copied is Copied.LAST
        return last, not first, checkpoint, copied is Copied.COMPLETING, name

    return sorted(names, key=rank)


class Mirror:
    """Pushes ``directory`` to ``storage`` while the context lasts, and again at its end.

    Storage that fails for a while costs nothing but the copies. At the end it is tried for ``PATIENCE_S`` seconds;
    then StoreError is raised, unless something else went wrong before.
    """

    def __init__(self, storage: Storage, directory: Path, every_s: float = EVERY_S) -> None:
        self._storage, self._directory, self._every_s = storage, directory, every_s
        self._over = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._follow, name="carl-storage", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        deadline = time.monotonic() + (PATIENCE_S if error is None else 0.0)
        while isinstance(failure := self._push(), StoreError) and time.monotonic() < deadline:
            time.sleep(min(5.0, self._every_s))
        if failure and error is None:
            raise StoreError(
                f"{failure}. The run is whole in {self._directory}; the same command copies it"
            ) from failure

    def _follow(self) -> None:
        while not self._over.wait(self._every_s):
            self._push()

    def _push(self) -> Exception | None:
        try:
            self._storage.check_latest(self._directory)
            self._storage.push(self._directory)
        except Exception as error:  # whatever a file system raises, a copy that fails must not end the copying
            if not self._failing:
                _log.warning("%s. The run goes on, and copies again later", error)
            self._failing = True
            return error
        self._failing = False
        return None
