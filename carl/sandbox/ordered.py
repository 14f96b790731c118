"""Sets that keep the order in which their elements came. That of Python's own hangs on hashes, and so on addresses."""

import ast
from collections.abc import Iterable, MutableSet, Set
from typing import Any, Self

NAME = "__set__"
"""What rewritten programs call ``OrderedSet``. They cannot write it themselves: the policy refuses the name."""


class OrderedSet(MutableSet[Any], dict[Any, None]):  # type: ignore[misc]  # both have `pop`, `update`, `clear`
    """A dict's keys, as fast as there, with a set's methods."""

    __contains__ = dict.__contains__
    __iter__ = dict.__iter__
    __len__ = dict.__len__
    clear = dict.clear

    def __init__(self, elements: Iterable[Any] = ()) -> None:
        dict.__init__(self, dict.fromkeys(elements))

    def add(self, value: Any) -> None:
        self[value] = None

    def discard(self, value: Any) -> None:
        dict.pop(self, value, None)

    def update(self, *others: Iterable[Any]) -> None:  # type: ignore[override]
        for other in others:
            dict.update(self, dict.fromkeys(other))

    def copy(self) -> Self:
        return type(self)(self)

    def union(self, *others: Iterable[Any]) -> Self:
        made = self.copy()
        made.update(*others)
        return made

    def intersection(self, *others: Iterable[Any]) -> Self:
        kept = [OrderedSet(other) for other in others]
        return type(self)(value for value in self if all(value in other for other in kept))

    def difference(self, *others: Iterable[Any]) -> Self:
        gone = OrderedSet().union(*others)
        return type(self)(value for value in self if value not in gone)

    def issubset(self, other: Iterable[Any]) -> bool:
        return self <= OrderedSet(other)

    def issuperset(self, other: Iterable[Any]) -> bool:
        return self >= OrderedSet(other)


class FrozenOrderedSet(OrderedSet):
    """One that can be a key or an element."""

    __hash__ = Set._hash  # type: ignore[assignment]


def rewritten(tree: ast.Module) -> ast.Module:
    """A program whose sets are ordered; a dict's keys and items are a set and a list, since views make sets too."""
    made: ast.Module = _Rewriter().visit(tree)
    return ast.fix_missing_locations(made)


class _Rewriter(ast.NodeTransformer):
    def visit_Set(self, node: ast.Set) -> ast.expr:
        self.generic_visit(node)
        return _ordered(ast.List(node.elts, ast.Load()), node)

    def visit_SetComp(self, node: ast.SetComp) -> ast.expr:
        self.generic_visit(node)
        return _ordered(ast.ListComp(node.elt, node.generators), node)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        match node.func:
            case ast.Attribute(attr="keys"):
                return _ordered(node, node)
            case ast.Attribute(attr="items"):
                return ast.copy_location(ast.List([ast.Starred(node, ast.Load())], ast.Load()), node)
        return node


def _ordered(elements: ast.expr, node: ast.expr) -> ast.expr:
    return ast.copy_location(ast.Call(ast.Name(NAME, ast.Load()), [elements], []), node)
