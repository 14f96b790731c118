"""The errors that carl raises. The class names what is at fault; the message is what happened and what to do."""

import re
import shlex
import traceback
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any


class CarlError(Exception):
    """Base of all errors that a user can act on; the command line prints its message without a traceback."""


class ConfigError(CarlError):
    """A setting is wrong, or contradicts what the run directory already holds."""


class TaskError(CarlError):
    """A task is unknown, or its environment or expert does not do what a Task promises."""


class StoreError(CarlError):
    """A trajectory store cannot be read or written; the message names the file."""


class VlmError(CarlError):
    """The vision-language model or its server failed: down, slow, refusing, or answering something unusable."""


class RewardError(CarlError):
    """A reward source cannot be opened, failed while it judged, or shows something else than what was asked for."""


class ProgramError(RewardError):
    """A reward program is malformed, or the static policy refuses it."""


class ApprovalError(RewardError):
    """A run that asks for a person's approval has a program that nobody approved, or approved otherwise."""


class BoxError(RewardError):
    """The process that runs generated code could not be started or kept alive."""


class ResourceError(CarlError):
    """The machine or the cluster lacks what the run asks for."""


def missing(error: ModuleNotFoundError) -> str:
    """The message for a package that is not installed."""
    return f"carl needs the package {error.name}: pip install code-as-reward, in the cluster's image too"


def command(name: str, where: Path | str) -> str:
    """``carl name`` for the run, the file or the folder at ``where``, as messages advise it."""
    return f"`carl {name} {shlex.quote(str(where))}`"


def closest(name: str, known: Iterable[str]) -> str | None:
    """The nearest of the ``known`` names, ignoring case (difflib's ratio of at least 0.6); None if none is near."""
    by_lower = {one.lower(): one for one in known}
    near = get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[near[0]] if near else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean NAME?`` for the nearest of the ``known`` names; empty if none is near."""
    near = closest(name, known)
    return f"; did you mean {near}?" if near else ""


def place_of(error: Exception) -> str:
    """Where ``error`` was raised, for a user to find it in code of theirs: "package/module.py:12, in step"."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno}, in {frame.name}"


Hint = Callable[[str], str]
"""A function from a name that does not exist to an addition to the message."""


def briefly(error: Exception, hint: Hint = lambda _: "") -> str:
    """``error``'s message in one line; for a pydantic ValidationError each field, its value and what it should be."""
    problems: Callable[..., list[Mapping[str, Any]]] | None = getattr(error, "errors", None)
    if problems is None:
        return " ".join(str(error).split())
    return "; ".join(_problem(one, hint) for one in problems(include_url=False, include_context=True))


def _problem(problem: Mapping[str, Any], hint: Hint) -> str:
    name, message = ".".join(map(str, problem["loc"])), str(problem["msg"])
    where = f"{name}: " if name else ""
    match problem["type"]:
        case "extra_forbidden":
            return f"there is no {name}{hint(name)}"
        case "missing":
            return f"{name} is missing"
        case "literal_error":
            choices = re.findall(r"'([^']*)'", str(problem["ctx"]["expected"]))
            given = str(problem["input"])
            return f"{where}{shown(given)} is not one of {', '.join(choices)}{did_you_mean(given, choices)}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"{where}{shown(problem['input'])} should be a mapping, as {{name: value}}"
        case "value_error" | "json_invalid" | "assertion_error":
            return where + message.partition(", ")[2] if message.startswith("Value error, ") else where + message
    wrong = message.partition(", unable to")[0].partition(", got")[0].removeprefix("Input ")
    return f"{where}{shown(problem['input'])} {wrong}"


def shown(value: Any) -> str:
    """A value for a message, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
