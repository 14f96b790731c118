"""The files of a run directory: one table of them, and how each is read and written, whole or not at all."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from carl.errors import ConfigError, briefly

CONFIG, STAGES, RESULT, REPORT = "config.json", "stages.json", "result.json", "report.html"
PROGRAM, VERIFICATION, SYNTHESIS = "program.json", "verification.json", "synthesis.json"
LOCK, CLAIM, STAMP = "run.lock", "claim.json", "copy.json"
"""The process that works in a directory, the one that copies to a URI, and the number of copies so far. They are not
copied: the directory and the URI each have their own."""

ASKED, CANDIDATES, TRAJECTORIES, TRAINING = "synthesis", "candidates", "trajectories", "training"
"""Folders: what the VLM was asked, the programs that were tried, stores of episodes, and the folders of the arms."""

JOURNAL = "exchanges.jsonl"
EXCHANGES, PAIRS = f"{ASKED}/{JOURNAL}", f"{ASKED}/pairs.npz"
"""Every exchange with the VLM, and the initial and goal frames that it was shown."""

SUBJECT, LIVE, CURVE, WATCH = "training.json", "live.json", "curve.jsonl", "watch.jsonl"
"""In the folder of an arm: what its checkpoints are a training of, its counters after each iteration, its learning
curve, and what its watch saw."""

CHECKPOINTS, EPISODE, WATCHED, REPAIR = "checkpoints", "episode", "watched", "repair"
"""In the folder of an arm: the folders of its checkpoints, the store of the episode that its policy played last, that
of the episodes for which its watch raised the newest alarm, and, numbered, those of searches for other programs."""

STATE, PUBLISHED, MANIFEST = "state.json", "sources.pkl", "manifest.json"
"""In the folder of a checkpoint its counters, and the sources that a teacher published, if any; in the folder of a
trajectory store its list of files."""

NEW = ".new"
"""End of the name of a file that is being written."""

Kind = TypeVar("Kind")


class Form(Enum):
    """What a file holds, which is how it is read and checked."""

    MAPPING = auto()
    """A JSON object."""
    LINES = auto()
    """JSON objects, one a line; the last line may still be being written."""
    PROGRAM = auto()
    """A RewardProgram."""
    PICTURES = auto()
    """A NumPy archive of ``initial`` and ``goal``, each ``uint8[P, H, W, 3]``."""
    STORE = auto()
    """The manifest of a TrajectoryStore."""
    OPAQUE = auto()
    """Anything that is not read as a file of a run: pages, pictures, RLlib's checkpoints, Parquet, locks."""


class Copied(Enum):
    """When a file is copied to the storage of a run."""

    NEVER = auto()
    FIRST = auto()
    """Without it nothing there is a run."""
    ANY_TIME = auto()
    COMPLETING = auto()
    """It calls the files beside and below it complete: it is copied after them, and deleted before."""
    LAST = auto()
    APART = auto()
    """It counts the copies: the copying writes it, there and here, after all others."""


@dataclass(frozen=True)
class Artefact:
    """What holds of one file of a run directory, or of all that match a pattern.

    Attributes:
        pattern: its path from the run directory; ``*`` matches anything, slashes included.
        form: how it is read and checked.
        remedy: what to do where it is damaged.
        copied: when it is copied to storage.
        pruned: whether a run may delete it, which deletes the copy as well.
        watched: whether its time of change is a sign of life of the run.
    """

    pattern: str
    form: Form
    remedy: str = "delete it to have it made again"
    copied: Copied = Copied.ANY_TIME
    pruned: bool = False
    watched: bool = False


def of_arm(arm: str, name: str) -> str:
    """The path, from the run directory, of a file or folder in the folder of an arm."""
    return f"{TRAINING}/{arm}/{name}"


_AGAIN = "delete the folder that it is in, and run again to have it recorded again"

TABLE: tuple[Artefact, ...] = (
    Artefact(CONFIG, Form.MAPPING, "correct it, or give another --run-dir", Copied.FIRST, watched=True),
    Artefact(STAGES, Form.MAPPING, "delete it, and each stage goes on from what it finds", Copied.LAST, watched=True),
    Artefact(EXCHANGES, Form.LINES, "delete that line, and the model is asked again", watched=True),
    Artefact(PAIRS, Form.PICTURES),
    Artefact(SYNTHESIS, Form.MAPPING),
    Artefact(f"{CANDIDATES}/*.json", Form.MAPPING, pruned=True),
    Artefact(
        PROGRAM,
        Form.PROGRAM,
        "correct it, or delete it to have it written again from the recorded answers",
        pruned=True,
        watched=True,
    ),
    Artefact(VERIFICATION, Form.MAPPING, "delete it, and `carl verify` judges the program again"),
    Artefact(f"{TRAJECTORIES}/*/{MANIFEST}", Form.STORE, _AGAIN, Copied.COMPLETING, pruned=True),
    Artefact(of_arm("*", f"{EPISODE}/{MANIFEST}"), Form.STORE, _AGAIN, Copied.COMPLETING, pruned=True),
    Artefact(
        of_arm("*", f"{WATCHED}/{MANIFEST}"),
        Form.STORE,
        "delete the folder that it is in",
        Copied.COMPLETING,
        pruned=True,
    ),
    Artefact(of_arm("*", f"{REPAIR}-*/{PROGRAM}"), Form.PROGRAM, "delete the folder that it is in", pruned=True),
    Artefact(of_arm("*", SUBJECT), Form.MAPPING, "delete the folder that it is in to train again", pruned=True),
    Artefact(of_arm("*", LIVE), Form.MAPPING, pruned=True, watched=True),
    Artefact(of_arm("*", CURVE), Form.LINES, "delete it to train that arm again", pruned=True, watched=True),
    Artefact(of_arm("*", WATCH), Form.LINES, "delete it, and what was watched is forgotten", pruned=True, watched=True),
    Artefact(of_arm("*", f"{CHECKPOINTS}/*/{STATE}"), Form.MAPPING, copied=Copied.COMPLETING, pruned=True),
    Artefact(RESULT, Form.MAPPING),
    Artefact(REPORT, Form.OPAQUE),
    Artefact(
        STAMP,
        Form.MAPPING,
        "delete it where it is damaged, if you know that the run did not go on elsewhere",
        Copied.APART,
    ),
    Artefact(LOCK, Form.OPAQUE, copied=Copied.NEVER),
    Artefact(CLAIM, Form.OPAQUE, copied=Copied.NEVER),
    Artefact(f"{TRAJECTORIES}/*", Form.OPAQUE, pruned=True),
    Artefact(f"{TRAINING}/*", Form.OPAQUE, pruned=True),
    Artefact("*", Form.OPAQUE, "correct it, or give another file"),
)
"""All files of a run directory. The first row that matches holds; the last one is for all that is not named."""


def watched(arms: Iterable[str]) -> list[str]:
    """The paths of the files whose times of change are signs of life of a run with these arms."""
    patterns = [row.pattern for row in TABLE if row.watched]
    one, each = ([name for name in patterns if ("*" in name) is of_an_arm] for of_an_arm in (False, True))
    return [*one, *(name.replace("*", arm) for name in each for arm in arms)]


@lru_cache(maxsize=4096)
def artefact(name: str) -> Artefact:
    """The row for a file, given by its path from the run directory."""
    return next(row for row in TABLE if fnmatchcase(name, row.pattern))


def remedy(where: str) -> str:
    """What to do about the damaged file at a path or URI."""
    path = "/" + (where.partition("?")[0] if "://" in where else where)
    return next(row.remedy for row in TABLE if fnmatchcase(path, f"*/{row.pattern}"))


@contextmanager
def whole(where: str) -> Iterator[None]:
    """Errors of reading the file at ``where`` become a ConfigError with its name, the reason and what to do."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{where} is not what this carl wrote ({_why(error)}): {remedy(where)}") from error


def parsed(text: str, where: str, kind: type[Kind]) -> Kind:
    """``text`` as JSON that holds a ``kind``; raises ConfigError that names the file, ``where``."""
    with whole(where):
        return _expected(json.loads(text), kind)


def read_json(path: Path, kind: type[Kind]) -> Kind:
    """The content of a JSON file that holds a ``kind``; raises ConfigError."""
    with whole(str(path)):
        return _expected(json.loads(path.read_text()), kind)


def records(text: str, where: str, check: Callable[[Any], object] = lambda _: None) -> list[dict[str, Any]]:
    """The records of a JSONL file, each of which ``check`` may refuse; a last line without its end is being written."""
    found: list[dict[str, Any]] = []
    for number, line in enumerate(text.split("\n")[:-1], 1):  # a string may hold what splitlines takes for an end
        with whole(where):
            try:
                found.append(_expected(json.loads(line), dict))
                check(found[-1])
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                raise ValueError(f"line {number}: {_why(error)}") from error
    return found


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one; raises ConfigError."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """As ``write_text``."""
    new = path.with_name(path.name + NEW)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(content)
        os.replace(new, path)
    except OSError as error:
        with suppress(OSError):
            new.unlink()
        raise ConfigError(f"cannot write {path}: {error}; mend that or give another --run-dir") from error


def _why(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else briefly(error)


def _expected(content: Any, kind: type[Kind]) -> Kind:
    if not isinstance(content, kind):
        raise TypeError(f"a {type(content).__name__} where a {kind.__name__} should be")
    return content
