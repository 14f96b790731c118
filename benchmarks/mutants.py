"""Mutants of a program's code: one number, comparison, operator or function is another."""

import ast
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

Change = Callable[[Any], Iterator[tuple[str, ast.AST]]]
"""Node to (what was changed, another node) for each way to change it."""

_COMPARED = {
    ast.Gt: (ast.Lt, ast.GtE),
    ast.Lt: (ast.Gt, ast.LtE),
    ast.GtE: (ast.Lt, ast.Gt),
    ast.LtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
}
_JOINED = {ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add}
_LIKE = {
    "largest": ("outline",),
    "outline": ("largest",),
    "solid": ("filled", "grown"),
    "filled": ("solid",),
    "grown": ("solid",),
    "changed": ("band",),
}
"""Functions of ``carl.vision`` in whose place another one takes the same arguments."""


def mutants(code: str) -> list[tuple[str, str]]:
    """Every mutant of ``code`` as (line:column and what was changed there, its code), each once; one change in each."""
    tree = ast.parse(code)
    known, found = {ast.unparse(tree)}, []
    for index, node in enumerate(ast.walk(tree)):
        for what, other in _changes(node):
            mutant = deepcopy(tree)
            _replace(mutant, index, other)
            text = ast.unparse(ast.fix_missing_locations(mutant)) + "\n"
            if text not in known:
                known.add(text)
                found.append((f"at {getattr(node, 'lineno', 0)}:{getattr(node, 'col_offset', 0)}, {what}", text))
    return found


def _replace(tree: ast.AST, index: int, other: ast.AST) -> None:
    """Put ``other`` in the place of the node that ``ast.walk`` comes to at ``index``."""
    target = list(ast.walk(tree))[index]
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is target:
                setattr(parent, name, other)
            elif isinstance(value, list) and any(one is target for one in value):
                setattr(parent, name, [other if one is target else one for one in value])


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    if change := _CHANGES.get(type(node)):
        yield from change(node)


def _numbers(node: ast.Constant) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node.value, int | float) and not isinstance(node.value, bool):
        others = (0, type(node.value)(node.value / 2), node.value * 2, node.value + 1)
        for other in (each for each in others if each != node.value):
            yield f"{node.value} as {other}", ast.Constant(other)


def _comparisons(node: ast.Compare) -> Iterator[tuple[str, ast.AST]]:
    for other in _COMPARED.get(type(node.ops[0]), ()):
        named = type(node.ops[0]).__name__, other.__name__
        yield " as ".join(named), ast.Compare(node.left, [other(), *node.ops[1:]], node.comparators)


def _operators(node: ast.BinOp) -> Iterator[tuple[str, ast.AST]]:
    if other := _JOINED.get(type(node.op)):
        yield f"{type(node.op).__name__} as {other.__name__}", ast.BinOp(node.left, other(), node.right)
    yield f"without what follows {type(node.op).__name__}", node.left


def _conditions(node: ast.BoolOp) -> Iterator[tuple[str, ast.AST]]:
    other = ast.Or if isinstance(node.op, ast.And) else ast.And
    yield f"{type(node.op).__name__} as {other.__name__}", ast.BoolOp(other(), node.values)
    for place, value in enumerate(node.values):
        yield f"only condition {place + 1}", value


def _negations(node: ast.UnaryOp) -> Iterator[tuple[str, ast.AST]]:
    yield f"without {type(node.op).__name__}", node.operand


def _frames(node: ast.Name) -> Iterator[tuple[str, ast.AST]]:
    other = {"frame": "initial", "initial": "frame"}.get(node.id)
    if other and isinstance(node.ctx, ast.Load):
        yield f"{node.id} as {other}", ast.Name(other, node.ctx)


def _functions(node: ast.Attribute) -> Iterator[tuple[str, ast.AST]]:
    for other in _LIKE.get(node.attr, ()):
        yield f"{node.attr} as {other}", ast.Attribute(node.value, other, node.ctx)


_CHANGES: dict[type[ast.AST], Change] = {
    ast.Constant: _numbers,
    ast.Compare: _comparisons,
    ast.BinOp: _operators,
    ast.BoolOp: _conditions,
    ast.UnaryOp: _negations,
    ast.Name: _frames,
    ast.Attribute: _functions,
}
