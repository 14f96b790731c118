"""The prompts: Markdown files with a version and named sections, filled from the outside."""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Self

NAMES = ("decompose", "write")
"""The prompts of a synthesis."""

_VERSION = re.compile(r"\A<!-- version: (\d+) -->\n")
_SECTION = re.compile(r"^<!-- section: (\w+) -->\n", re.MULTILINE)


@dataclass(frozen=True)
class PromptFile:
    """One prompt: ``id`` is its name and version, as in ``write/1``."""

    id: str
    sections: Mapping[str, str]

    @classmethod
    def parse(cls, name: str, text: str) -> Self:
        """The prompt in ``text``; raises ValueError if that has no version."""
        version = _VERSION.match(text)
        if version is None:
            raise ValueError(f"the prompt {name!r} does not begin with <!-- version: N -->")
        _, *parts = _SECTION.split(text)
        names, bodies = parts[::2], [body.strip("\n") for body in parts[1::2]]
        return cls(f"{name}/{version[1]}", dict(zip(names, bodies, strict=True)))

    def fill(self, section: str, **values: object) -> str:
        """A section with its ``{placeholders}`` filled; placeholders inside ``values`` stay as they are."""
        return self.sections[section].format_map(values)


@cache
def load(name: str) -> PromptFile:
    """The prompt file ``name``, shipped with this package."""
    text = resources.files(__name__).joinpath(f"{name}.md").read_text(encoding="utf-8")
    return PromptFile.parse(name, text)


@cache
def vision_reference() -> str:
    """carl.vision's public functions and types: signature as written, and what its docstring says; bands of colours."""
    from carl import vision

    tree = ast.parse(Path(vision.__file__).read_text(encoding="utf-8"))
    lines = ["Frame is uint8[H, W, 3] and Mask is bool[H, W]."]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
            lines.append(f"vision.{node.name}({ast.unparse(node.args)}){returned}")
            lines += _documented(node)
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            fields = [ast.unparse(each.target) for each in node.body if isinstance(each, ast.AnnAssign)]
            lines += [f"{node.name} has the fields {', '.join(fields)}", *_documented(node)]
    bands = [f"{name} {_bands(each)}" for name, each in vision.HUES.items()]
    lines.append(f"Bands of hue (0 to 180, ends included): {', '.join(bands)}.")
    return "\n".join(f"    {line}" for line in lines)


def _bands(bands: Sequence[tuple[int, int]]) -> str:
    return " and ".join(f"{first} to {last}" for first, last in bands)


def _documented(node: ast.FunctionDef | ast.ClassDef) -> list[str]:
    """The docstring, each paragraph on a line of its own."""
    paragraphs = (ast.get_docstring(node) or "").replace("``", "").split("\n\n")
    return [f"    {' '.join(paragraph.split())}" for paragraph in paragraphs]
