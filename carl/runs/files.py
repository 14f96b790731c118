"""The files of a run, wherever it lies: each is read whole, or refused in one sentence that names it."""

import io
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carl.artefacts import Form, artefact, parsed, records, remedy, whole
from carl.config import below
from carl.episodes.trajectory import TrajectoryStore
from carl.errors import ConfigError, StoreError, briefly
from carl.program import RewardProgram
from carl.runs.storage import Storage
from carl.runs.values import check
from carl.task import Frame


class Files:
    """The files of the run in a directory, or of its copy under a URI of ``pyarrow.fs``.

    Files are named by their path from the directory, as in the table of ``carl.artefacts``. Whatever cannot be read
    raises StoreError, and what is not what carl wrote ConfigError, ProgramError or StoreError, naming the file.
    """

    def __init__(self, run: str | Path) -> None:
        self.run = str(run).rstrip("/") or "/"
        self.far = "://" in self.run
        self._storage = Storage(self.run if self.far else Path(os.path.expanduser(self.run)).absolute().as_uri())

    def where(self, name: str) -> str:
        """The path or URI of a file."""
        return below(self.run, name) if self.far else f"{self.run}/{name}"

    def read(self, name: str) -> Any:
        """What a file holds, in its form, with its values checked; None if there is no such file."""
        return self._read(name, artefact(name).form)

    def mapping(self, name: str) -> dict[str, Any] | None:
        """As ``read``, of any file that holds a JSON object, a program too."""
        found: dict[str, Any] | None = self._read(name, Form.MAPPING)
        return found

    def _read(self, name: str, form: Form) -> Any:
        try:
            content = self._storage.read_bytes(name)
        except StoreError:
            if self.far or not Path(self.where(name)).is_dir():
                raise
            with whole(self.where(name)):
                raise IsADirectoryError("Is a directory") from None
        if content is None:
            return None
        with whole(self.where(name)):
            return _READ[form](content, self.where(name), partial(check, name))

    def holds(self, name: str) -> bool:
        """Whether there is such a file or folder."""
        return self._storage.holds(name)

    def names(self, folder: str) -> list[str]:
        """The paths of the files in a folder, sorted."""
        return [f"{folder}/{name}" for name in self._storage.names(folder)]

    def store(self, folder: str) -> TrajectoryStore:
        """The store of episodes in a folder, which need not exist."""
        return TrajectoryStore(self.where(folder))

    def changed(self, names: Sequence[str]) -> float:
        """When one of these files was written last, in seconds since 1970; 0 if there is none."""
        return self._storage.changed(names)


Check = Callable[[Mapping[str, Any]], None]


def _mapping(content: bytes, where: str, check: Check) -> dict[str, Any]:
    found: dict[str, Any] = parsed(str(content, "utf-8"), where, dict)
    check(found)
    return found


def _lines(content: bytes, where: str, check: Check) -> list[dict[str, Any]]:
    return records(str(content, "utf-8"), where, check)


def _program(content: bytes, where: str, _: Check) -> RewardProgram:
    return RewardProgram.parse(content, where)


def _pictures(content: bytes, where: str, _: Check) -> tuple[Frame, Frame]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            initial, goal = pictures(arrays["initial"]), pictures(arrays["goal"])
    except Exception as error:  # a damaged archive raises whatever its zip or npy reader stumbles over
        raise ConfigError(f"{where} cannot be read ({briefly(error)}): {remedy(where)}") from error
    return initial, goal


def pictures(frames: NDArray[Any]) -> Frame:
    """``frames`` if they are ``uint8[P, H, W, 3]``; raises ValueError."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
        raise ValueError(f"frames are {frames.dtype}{list(frames.shape)}, not uint8[P, H, W, 3]")
    return frames


_READ: Mapping[Form, Callable[[bytes, str, Check], Any]] = {
    Form.MAPPING: _mapping,
    Form.LINES: _lines,
    Form.PROGRAM: _program,
    Form.PICTURES: _pictures,
}
"""How each form that is read whole is read; a STORE is opened by ``Files.store``."""
