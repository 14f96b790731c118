"""The files of a run directory: read whole or refused in one sentence that says what to do; written whole or not."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from carl.errors import ConfigError, briefly

CONFIG = "config.json"
STAGES = "stages.json"
PROGRAM = "program.json"
VERIFICATION = "verification.json"
SYNTHESIS = "synthesis.json"
EXCHANGES = "synthesis/exchanges.jsonl"
RESULT = "result.json"
LOCK, CLAIM = "run.lock", "claim.json"
"""Who works in the directory, and who copies to the URI, as long as somebody does; neither is ever copied."""

SUBJECT, LIVE, CURVE, STATE = "training.json", "live.json", "curve.jsonl", "state.json"
"""In the folder of an arm: what its checkpoints are a training of, how far it is after each iteration, its learning
curve; and in the folder of a checkpoint, how far it had come."""

Kind = TypeVar("Kind")

REMEDIES: Mapping[str, str] = {
    CONFIG: "correct it, or give another --run-dir",
    STAGES: "delete it, and each stage goes on from what it finds",
    PROGRAM: "correct it, or delete it to have it written again from the recorded answers",
    VERIFICATION: "delete it, and `carl verify` judges the program again",
    "exchanges.jsonl": "delete that line, and the model is asked again",
    SUBJECT: "delete the folder that it is in to train again",
    CURVE: "delete it to train that arm again",
    "copy.json": "delete it where it is damaged, if you know that the run did not go on elsewhere",
    "manifest.json": "delete the folder that it is in, and run again to have it recorded again",
}
"""What to do about a damaged file, by its name; all others are made again once they are deleted."""


def remedy(where: str) -> str:
    """What to do about the damaged file at a path or URI."""
    return REMEDIES.get(PurePosixPath(where).name, "delete it to have it made again")


@contextmanager
def whole(where: str) -> Iterator[None]:
    """While the file at ``where`` is read: what it causes is a ConfigError that names it and says what to do."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        said = f"no {error}" if isinstance(error, KeyError) else briefly(error)
        raise ConfigError(f"{where} is not what this carl wrote ({said}): {remedy(where)}") from error


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
                said = f"no {error}" if isinstance(error, KeyError) else briefly(error)
                raise ValueError(f"line {number}: {said}") from error
    return found


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one; raises ConfigError."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """As ``write_text``."""
    new = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(content)
        os.replace(new, path)
    except OSError as error:
        with suppress(OSError):
            new.unlink()
        raise ConfigError(f"cannot write {path}: {error}; mend that or give another --run-dir") from error


def _expected(content: Any, kind: type[Kind]) -> Kind:
    if not isinstance(content, kind):
        raise TypeError(f"a {type(content).__name__} where a {kind.__name__} should be")
    return content
