"""Sets that keep the order of insertion. The order of Python's own depends on hashes, and so on addresses."""

import ast
from collections.abc import Iterable, MutableSet, Set
from typing import Any, Self

NAME = "__set__"
"""The name of ``OrderedSet`` in rewritten programs, which the policy refuses in their sources."""


class OrderedSet(MutableSet[Any], dict[Any, None]):  # type: ignore[misc]  # both have `pop`, `update`, `clear`
    """A set on the keys of a dict, as fast as that. Methods are those of ``set``; they keep the order of ``self``."""

    __contains__ = dict.__contains__
    __iter__ = dict.__iter__
    __len__ = dict.__len__
    clear = dict.clear

    def __init__(self, elements: Iterable[Any] = ()) -> None:
        dict.__init__(self, dict.fromkeys(elements))

    def add(self, value: Any) -> None:
        """Add ``value`` at the end, unless it is there."""
        self[value] = None

    def discard(self, value: Any) -> None:
        """Remove ``value`` if it is there."""
        dict.pop(self, value, None)

    def update(self, *others: Iterable[Any]) -> None:  # type: ignore[override]
        """Add the elements of ``others`` in their order."""
        for other in others:
            dict.update(self, dict.fromkeys(other))

    def copy(self) -> Self:
        """A set of the same elements in the same order."""
        return type(self)(self)

    def union(self, *others: Iterable[Any]) -> Self:
        """The elements of ``self``, then the further ones of ``others``."""
        made = self.copy()
        made.update(*others)
        return made

    def intersection(self, *others: Iterable[Any]) -> Self:
        """The elements of ``self`` that each of ``others`` has."""
        kept = [OrderedSet(other) for other in others]
        return type(self)(value for value in self if all(value in other for other in kept))

    def difference(self, *others: Iterable[Any]) -> Self:
        """The elements of ``self`` that none of ``others`` has."""
        gone = OrderedSet().union(*others)
        return type(self)(value for value in self if value not in gone)

    def issubset(self, other: Iterable[Any]) -> bool:
        """Whether ``other`` has all elements of ``self``."""
        return self <= OrderedSet(other)

    def issuperset(self, other: Iterable[Any]) -> bool:
        """Whether ``self`` has all elements of ``other``."""
        return self >= OrderedSet(other)


class FrozenOrderedSet(OrderedSet):
    """An OrderedSet that can be a key of a dict or an element of a set."""

    __hash__ = Set._hash  # type: ignore[assignment]


def rewritten(tree: ast.Module) -> ast.Module:
    """A program with OrderedSet for set; ``.keys()`` becomes one and ``.items()`` a list, since views make sets too."""
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
