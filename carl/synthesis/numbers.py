"""The numbers in a function's code that may be tuned: bounds, areas, distances."""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from carl.synthesis.parse import HOLD

STRUCTURAL = (0, 1, 2)
"""Integers that are counts, axes and places rather than measures."""

_KEPT = (ast.Subscript, ast.Return)
"""What holds no measure: an index, and the values that a function gives."""


@dataclass(frozen=True)
class Number:
    """A number in a text: where it stands (line from 1, columns in bytes of UTF-8) and what it is."""

    line: int
    start: int
    end: int
    value: float
    whole: bool


def numbers(code: str) -> list[Number]:
    """The numbers that are compared, then all others, each in the order of the text; none for code that is no Python.

    Left out are zeros, ones, small whole numbers, ``HOLD``, and numbers in an index or right after ``return``.
    """
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError):
        return []
    found = [*_found(tree, compared=False)]
    return [number for compared in (True, False) for number, how in found if how is compared]


def _found(node: ast.AST, compared: bool) -> Iterator[tuple[Number, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(node, ast.Return) and isinstance(child, ast.IfExp):
            yield from _found(child.test, compared)
        elif isinstance(child, ast.Assign) and ast.unparse(child.targets[0]) == HOLD:
            continue
        elif isinstance(child, ast.Subscript):
            yield from _found(child.value, compared) if not isinstance(child.value, ast.Constant) else ()
        elif isinstance(child, ast.Constant):
            if not isinstance(node, _KEPT) and (number := _number(child)):
                yield number, compared
        else:
            yield from _found(child, compared or isinstance(child, ast.Compare))


def _number(node: ast.Constant) -> Number | None:
    value = node.value
    if isinstance(value, bool) or not isinstance(value, int | float) or not value:
        return None
    if abs(value) == 1 or (isinstance(value, int) and value in STRUCTURAL) or node.end_col_offset is None:
        return None
    return Number(node.lineno, node.col_offset, node.end_col_offset, float(value), isinstance(value, int))


def replaced(code: str, found: Sequence[Number], values: Sequence[float]) -> str:
    """``code`` with other values for these numbers; whole ones are rounded, others have four digits."""
    lines = [line.encode() for line in code.split("\n")]
    pairs = sorted(zip(found, values, strict=True), key=lambda pair: (pair[0].line, -pair[0].start))
    for number, value in pairs:
        text = str(round(value)) if number.whole else repr(float(f"{value:.4g}"))
        line = lines[number.line - 1]
        lines[number.line - 1] = line[: number.start] + text.encode() + line[number.end :]
    return "\n".join(line.decode() for line in lines)
