"""The code of ``progress(frame, initial)`` in an answer: in a fence, in several, or as it stands among prose."""

import ast
import json
import re
import textwrap
import warnings
from collections.abc import Iterator
from typing import Any

from carl.program import FUNCTION
from carl.synthesis.bare import Unusable, bare, excerpt, looks_like

_FENCE = re.compile(r"^(?P<before>[^`~]*?)(?P<fence>`{3,}|~{3,})[ \t]*\{?\.?(?P<language>[^\s`{}]*)[^`\n]*$")
_PYTHON = ("", "python", "python3", "py", "python2", "ipython", "tool_code", "code", "text", "plaintext")
_CODE = re.compile(
    r"\s+\S|(?:from\s+[\w.]+\s+)?import\s+\w|(?:async\s+)?def\s|@\w|[)\]}]"
    r"|[A-Za-z_]\w*\s*(?::\s*[\w.\[\]]+\s*)?=[^=]"
)
"""Lines of code at the top level, and all that are indented."""
_DEFINES = re.compile(rf"^\s*def\s+{FUNCTION}\b", re.MULTILINE)

_LABEL = re.compile(r"^[ \t]*#.*?\bsub-?task\s*#?(\d+).*\n", re.IGNORECASE | re.MULTILINE)
"""The comment that says of which sub-task a block is."""

HOLD = "HOLD"
"""The constant by which code asks to be shown done for several frames in a row."""

MAX_HOLD = 100

UNFIT = "the model says that no frame shows whether this sub-task is done"
"""The kind of an answer that says so, on a line that begins with UNFIT, instead of code."""

_UNFIT = re.compile(r"^\W*UNFIT\b\W*(.*)", re.MULTILINE)

CUT_OFF = "the answer was cut off"
"""What rejections of answers that did not end begin with."""


def parse_code(answer: str) -> str:
    """The Python code that defines ``progress(frame, initial)``: of several fenced blocks the last that does.

    An answer without a fence passes if there is Python between the prose, or in JSON. Raises Unusable, a ProgramError.
    """
    text = bare(answer).replace("\xa0", " ").replace("\u200b", "")
    blocks = _blocks(text)
    blocks = blocks if any(_DEFINES.search(code) for _, code in blocks) else _in_json(blocks, text) or blocks
    if not blocks:
        return _checked(_among_prose(text))
    defining = [code for _, code in blocks if _DEFINES.search(code)]
    python = [code for language, code in blocks if language in _PYTHON]
    if not defining and not python:
        raise Unusable(f"the answer is written in {blocks[0][0]}, not in Python")
    return _checked((defining or python)[-1])


def parse_codes(answer: str, index: int, count: int) -> dict[int, str]:
    """Code by sub-task (from 0, of ``count``) in an answer that mends one or several functions.

    A block says in a comment above its code which sub-task it is of. Without such comments the answer is as for
    ``parse_code``, and of sub-task ``index``. Raises Unusable, a ProgramError; of the kind UNFIT if the answer says
    instead that there can be no such code.
    """
    blocks = [code for _, code in _blocks(bare(answer)) if _DEFINES.search(code)]
    labels = [_LABEL.search(_DEFINES.split(code)[0]) for code in blocks]
    labelled = {int(label[1]) - 1: code for label, code in zip(labels, blocks, strict=True) if label}
    if not blocks and (unfit := _UNFIT.search(bare(answer))):
        raise Unusable(UNFIT, excerpt(unfit[1]))
    if not labelled:
        return {index: parse_code(answer)}
    if stray := [number + 1 for number in labelled if not 0 <= number < count]:
        raise Unusable("a program is of a sub-task that there is not", f"number {stray[0]} of {count}")
    return {number: _checked(_LABEL.sub("", labelled[number], count=1)) for number in sorted(labelled)}


def hold_of(code: str) -> int:
    """The frames in a row for which code asks to be shown done: its ``HOLD = k`` at the top level, else 1.

    The code is read, not run. Raises Unusable if ``HOLD`` is anything but one number from 1 to ``MAX_HOLD``.
    """
    tree = _parsed(code)
    stores = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    if not any(node.id == HOLD for node in stores):
        return 1
    found = [node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == HOLD]
    value = found[0].value.value if len(found) == 1 and isinstance(found[0].value, ast.Constant) else None
    if type(value) is not int or not 1 <= value <= MAX_HOLD:
        raise Unusable(f"{HOLD} has to be one line `{HOLD} = k` at the top level, k a number from 1 to {MAX_HOLD}")
    return value


def _blocks(text: str) -> list[tuple[str, str]]:
    """(language, code) of each fenced block, in order; raises Unusable if one is left open."""
    blocks: list[tuple[str, str]] = []
    lines: list[str] = []
    fence = language = ""
    for line in text.splitlines():
        found = _FENCE.match(line)
        if not fence and found:
            fence, language, lines = found["fence"], found["language"].lower(), []
        elif fence and _closes(line, fence):
            lines.append(line.rstrip().rstrip(fence[0]))
            blocks += _unwrapped(language, textwrap.dedent("\n".join(lines)))
            fence = ""
        elif fence:
            lines.append(line)
    if fence and (language or any(map(str.strip, lines))):  # else the prompt may have opened it
        raise Unusable(f"{CUT_OFF}: the code block is not closed; raise vlm.max_tokens, or write a shorter program")
    return blocks


def _closes(line: str, fence: str) -> bool:
    """Whether a line ends in at least as long a fence, alone or after code that holds none."""
    line = line.rstrip()
    code = line.rstrip(fence[0])
    return len(line) - len(code) >= len(fence) and fence not in code


def _unwrapped(language: str, code: str) -> list[tuple[str, str]]:
    """The blocks inside a block, such as one of Markdown; itself if there are none."""
    return (_blocks(code) if re.search(r"^\s*(?:```|~~~)", code, re.MULTILINE) else []) or [(language, code)]


def _in_json(blocks: list[tuple[str, str]], text: str) -> list[tuple[str, str]]:
    """What defines the function in JSON, in one of ``blocks`` or around the outermost braces of ``text``."""
    inner = text[text.find("{") : text.rfind("}") + 1]
    found = []
    for content in [code for _, code in blocks] or [inner]:
        try:
            found += [value for value in _strings(json.loads(content)) if _DEFINES.search(value)]
        except (ValueError, RecursionError):
            continue
    return [block for value in found for block in _blocks(value) or [("", value)]]


def _strings(value: Any) -> Iterator[str]:
    """All texts in a JSON value, but for its keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)


def _among_prose(text: str) -> str:
    """From the first to the last line that looks like code: what stands before and after is prose."""
    if not _DEFINES.search(text):
        detail = excerpt(text) if text.strip() else f"it has to define {FUNCTION}(frame, initial)"
        raise Unusable(f"no Python program in the answer, {looks_like(text)}", detail)
    lines = text.splitlines()
    code = [number for number, line in enumerate(lines) if _CODE.match(line)]
    return "\n".join(lines[code[0] : code[-1] + 1])


def _checked(text: str) -> str:
    """``text`` with plain line ends, if it is Python that defines the function; nothing is executed."""
    code = "\n".join(line.rstrip() for line in text.strip("\n").splitlines()) + "\n"
    functions = [node for node in _parsed(code).body if isinstance(node, ast.FunctionDef)]
    wanted = [node for node in functions if node.name == FUNCTION]
    if not wanted:
        names = ", ".join(node.name for node in functions) or "no function"
        raise Unusable(f"the program defines {names}, not {FUNCTION}(frame, initial)")
    parameters = [argument.arg for argument in (*wanted[-1].args.posonlyargs, *wanted[-1].args.args)]
    if parameters != ["frame", "initial"]:
        raise Unusable(f"the parameters of {FUNCTION} are {parameters}, not frame and initial")
    hold_of(code)
    return code


def _parsed(code: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as an invalid escape in what the model wrote
            return ast.parse(code)
    # ast.parse raises the last three on null bytes and on nesting that is too deep
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Unusable("no Python program in the answer", f"{error}: {excerpt(code)}") from error
