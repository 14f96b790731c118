"""A program as a folder of .py files, which a person edits, and a listing of what is not code."""

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from carl.artefacts import write_bytes, write_text
from carl.errors import ConfigError, ProgramError, briefly
from carl.program import RewardProgram, SubTask
from carl.provenance import Provenance
from carl.sandbox.policy import violations

LISTING, ORIGIN = "program.toml", "provenance.json"
"""Order and fields of the sub-tasks; and where the program came from, which is not for editing."""

HEAD = """\
# The reward program {id}, one .py file for each sub-task. Edit those files, and names, weights and order here.
# `carl program import FOLDER RUN` brings it back into a run, whose gate then judges it as any other program.
"""

CODE = "code"
"""The field of a sub-task that has a file of its own."""


def write_folder(program: RewardProgram, folder: Path) -> list[Path]:
    """Write ``program`` into ``folder``, and return the files of its code; ``read_folder`` gives back its very id.

    Raises ConfigError if the folder holds something already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} holds something already: give a new folder, since it may be somebody's edits")
    names = [f"{number:02d}-{_slug(one.name)}.py" for number, one in enumerate(program.subtasks, 1)]
    for name, subtask in zip(names, program.subtasks, strict=True):
        write_bytes(folder / name, subtask.code.encode())
    if program.provenance:
        write_text(folder / ORIGIN, program.provenance.model_dump_json(indent=1) + "\n")
    write_text(folder / LISTING, _listing(program, names))
    return [folder / name for name in names]


def read_folder(folder: Path) -> RewardProgram:
    """The program in a folder, with the provenance of the one that was exported; where it was edited, that says so.

    Raises ConfigError if the folder is none that ``write_folder`` wrote, and ProgramError, in one sentence with the
    file and the line, for what no program may hold.
    """
    listing = _parsed(folder)
    entries = listing.get("subtasks")
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        raise ProgramError(f"{folder / LISTING} lists no sub-tasks: give a table [[subtasks]] for each")
    files = [_file(folder, entry) for entry in entries]
    program = _program(folder, listing, [_subtask(folder, *one) for one in zip(entries, files, strict=True)])
    if unlisted := sorted({path.name for path in folder.glob("*.py")} - {path.name for path in files}):
        raise ProgramError(f"{folder / LISTING} does not name {unlisted[0]}: add [[subtasks]] for it, or delete it")
    for path, subtask in zip(files, program.subtasks, strict=True):
        _check(path, subtask.code)
    return _descended(program, str(listing.get("parent", "")))


def _descended(program: RewardProgram, parent: str) -> RewardProgram:
    """``program`` with the note that a person made it out of ``parent``, an id, unless it is that very program."""
    if program.id == parent:
        return program
    origin = program.provenance or Provenance()
    return program.model_copy(update={"provenance": origin.of_edited(program.id, parent or origin.parent)})


def _parsed(folder: Path) -> dict[str, Any]:
    path = folder / LISTING
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{folder} holds no {LISTING} ({briefly(error)}): `carl program export` writes such a folder"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProgramError(f"{path} is not TOML: {briefly(error)}; correct it there") from error


def _file(folder: Path, entry: Mapping[str, Any]) -> Path:
    name = entry.get("file")
    if not isinstance(name, str) or name != Path(name).name:
        raise ProgramError(f'{folder / LISTING}: each [[subtasks]] needs a file beside it, as file = "a.py"')
    return folder / name


def _subtask(folder: Path, entry: Mapping[str, Any], path: Path) -> SubTask:
    try:
        code = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ProgramError(f"{path}, which {LISTING} names, cannot be read: {briefly(error)}") from error
    fields = {name: value for name, value in entry.items() if name != "file"}
    try:
        return SubTask.model_validate({**fields, CODE: code})
    except ValidationError as error:
        raise ProgramError(f"{folder / LISTING}, sub-task {path.name}: {briefly(error)}") from error


def _program(folder: Path, listing: Mapping[str, Any], subtasks: list[SubTask]) -> RewardProgram:
    fields = {name: value for name, value in listing.items() if name not in ("subtasks", "parent")}
    origin = folder / ORIGIN
    try:
        known = Provenance.model_validate_json(origin.read_bytes()) if origin.exists() else None
    except (OSError, ValidationError) as error:
        raise ProgramError(f"{origin} is not what carl wrote ({briefly(error)}): delete it to go without") from error
    try:
        program = RewardProgram.model_validate({**fields, "subtasks": tuple(subtasks), "provenance": known})
    except ValidationError as error:
        raise ProgramError(f"{folder / LISTING}: {briefly(error)}") from error
    return RewardProgram.parse(program.to_json().encode(), str(folder / LISTING))


def _check(path: Path, code: str) -> None:
    """Raise ProgramError for the first thing that the static policy refuses in a file, a syntax error among them."""
    if found := violations(code):
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise ProgramError(f"{path}, {found[0]}{more}; correct it there and try again")


def _listing(program: RewardProgram, files: list[str]) -> str:
    head = {"parent": program.id, **program.model_dump(exclude={"subtasks", "provenance"})}
    parts = [HEAD.format(id=program.id) + _table(head)]
    for file, subtask in zip(files, program.subtasks, strict=True):
        fields = {name: getattr(subtask, name) for name in SubTask.model_fields if name != CODE}
        parts.append("[[subtasks]]\n" + _table({"file": file, **fields}))
    return "\n".join(parts)


def _table(fields: Mapping[str, str | bool | float]) -> str:
    return "".join(f"{name} = {_value(value)}\n" for name, value in fields.items())


def _value(value: str | bool | float) -> str:
    """A value as TOML writes it: strings as JSON does, but for DEL."""
    text = json.dumps(value, ensure_ascii=False)
    return text.replace("\x7f", "\\u007f")


def _slug(name: str) -> str:
    """``name`` for a file: letters and digits of ASCII, at most 40 characters."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or "sub-task"
