"""What a VLM answered, as plans and sources; whatever is neither raises a ProgramError that says why."""

import ast
import re
import warnings
from dataclasses import dataclass

from carl.errors import ProgramError
from carl.program import FUNCTION, MAX_SUBTASKS

MAX_NAME = 80
"""Longest name of a sub-task, in characters: more is prose."""

_NUMBERED = re.compile(r"^ {0,3}[*_#]*\s*(\d{1,2})[.)][*_]*\s+(\S.*)$")
_SCENE = re.compile(r"^\W*scene\W*?:\W*(.+)$", re.IGNORECASE | re.MULTILINE)
_APART = re.compile(r"\s+[-\u2013\u2014]\s+|:\s+")
_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([^\s`]*)[^\n]*$")
_PYTHON = ("", "python", "python3", "py")


@dataclass(frozen=True)
class Step:
    """A sub-task that has no program yet."""

    name: str
    description: str = ""


@dataclass(frozen=True)
class Plan:
    """A decomposition: the sub-tasks in order, and what the model saw."""

    steps: tuple[Step, ...]
    scene: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """Equal for plans that name the same sub-tasks."""
        return tuple(" ".join(step.name.casefold().split()) for step in self.steps)

    def __str__(self) -> str:
        return "\n".join(f"{index}. {_line(step)}" for index, step in enumerate(self.steps, 1))


def _line(step: Step) -> str:
    return f"{step.name} - {step.description}" if step.description else step.name


def parse_plan(answer: str) -> Plan:
    """Numbered lines ``1. name`` or ``1. name - sentence``, the last such list; ``Scene: ...`` may come before.

    Raises ProgramError.
    """
    steps: list[Step] = []
    for line in answer.splitlines():
        found = _NUMBERED.match(line)
        if found is None:
            continue
        if int(found[1]) == 1:
            steps = []
        if int(found[1]) != len(steps) + 1:
            raise ProgramError(f"the numbers of the sub-tasks do not count up: {line.strip()[:MAX_NAME]!r}")
        steps.append(_step(found[2]))
    if not steps:
        raise ProgramError(f"no numbered sub-tasks in the answer: {_excerpt(answer)}")
    if len(steps) > MAX_SUBTASKS:
        raise ProgramError(f"{len(steps)} sub-tasks; at most {MAX_SUBTASKS} are allowed")
    scene = _SCENE.search(answer)
    return Plan(tuple(steps), scene[1].strip() if scene else "")


def _step(text: str) -> Step:
    name, *rest = _APART.split(text, maxsplit=1)
    name = name.strip("*_`\"' \t.:;,")
    if not name or len(name) > MAX_NAME:
        raise ProgramError(f"not the short name of a sub-task: {_excerpt(text)}")
    return Step(name, rest[0].strip("*_ \t") if rest else "")


def parse_source(answer: str) -> str:
    """The Python source that defines ``progress(frame, initial)``: of several fenced blocks the last that does.

    An answer without a fence passes if it is Python as it stands. Raises ProgramError.
    """
    blocks = _blocks(answer)
    if not blocks:
        return _checked(answer)
    python = [text for language, text in blocks if language in _PYTHON]
    if not python:
        raise ProgramError(f"the answer is written in {blocks[0][0]}, not in Python")
    defining = [text for text in python if re.search(rf"^\s*def\s+{FUNCTION}\b", text, re.MULTILINE)]
    return _checked((defining or python)[-1])


def _blocks(answer: str) -> list[tuple[str, str]]:
    """(language, text) of each fenced block; raises ProgramError if one is left open."""
    blocks: list[tuple[str, str]] = []
    lines: list[str] = []
    fence = language = ""
    for line in answer.splitlines():
        found = _FENCE.match(line)
        if not fence and found:
            fence, language, lines = found[1], found[2].lower(), []
        elif fence and line.strip() == fence:
            blocks.append((language, "\n".join(lines)))
            fence = ""
        elif fence:
            lines.append(line)
    if fence:
        raise ProgramError("the code block is not closed: the answer was cut off; a shorter program is needed")
    return blocks


def _checked(text: str) -> str:
    """``text`` with plain line ends, if it is Python that defines the function; nothing is executed."""
    source = "\n".join(line.rstrip() for line in text.strip("\n").splitlines()) + "\n"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as an invalid escape in what the model wrote
            tree = ast.parse(source)
    # ast.parse raises the last three on null bytes and on nesting that is too deep
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ProgramError(f"no Python program in the answer ({error}): {_excerpt(text)}") from error
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    wanted = [node for node in functions if node.name == FUNCTION]
    if not wanted:
        names = ", ".join(node.name for node in functions) or "no function"
        raise ProgramError(f"the program defines {names}, not {FUNCTION}(frame, initial)")
    parameters = [argument.arg for argument in wanted[-1].args.args]
    if parameters != ["frame", "initial"]:
        raise ProgramError(f"the parameters of {FUNCTION} are {parameters}, not frame and initial")
    return source


def _excerpt(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 120 else text[:117] + "...")
