"""A sub-task's code as a syntax tree. Nothing is compiled here: what the compiler refuses is found in the tree.

The tree is what runs. Annotations, imports of their names and a main guard have no effect in a program, so they are
removed before the policy checks it.

The compiler's memory is not bounded: a few lines can take gigabytes (it writes out a nested ``finally`` block twice for
each level). So code is compiled in the box alone, where memory and time are limited.
"""

import ast
import io
import symtable
import tokenize
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

MAX_CHARACTERS = 20_000
"""Longest code. Parsing it takes at most 0.05 s and 20 MB, however it is nested: the work grows with the length."""

MAX_LOOPS = 20
"""Loops within loops: CPython's own limit (``CO_MAXBLOCKS``)."""

MAX_BEFORE_STARRED = 255
"""Targets before a starred one: CPython's own limit."""


TYPING = frozenset({"__future__", "typing", "collections.abc", "numpy.typing"})
"""Modules whose imports serve annotations only."""


@dataclass(frozen=True, order=True)
class Violation:
    """One thing that the policy refuses: its line in the source (from 1) and what to do instead."""

    line: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}"


def read(source: str) -> tuple[ast.Module | None, list[Violation]]:
    """The tree, None if it cannot be parsed, and everything that is not valid Python in it."""
    if len(source) > MAX_CHARACTERS:
        return None, [Violation(1, f"the source has {len(source)} characters; keep it below {MAX_CHARACTERS}")]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as an invalid escape
            tree, scopes = parsed(source), _scopes(source)
        return tree, [*_foreign_names(source), *scopes, *_uncompilable(tree)]
    except (SyntaxError, tokenize.TokenError) as error:
        return None, [_invalid(error)]
    except (ValueError, RecursionError, MemoryError) as error:
        return None, [Violation(1, f"not readable as Python: {error}")]


def parsed(source: str, file: str = "<sub-task>") -> ast.Module:
    """The tree of what runs of ``source``; raises what ``ast.parse`` raises."""
    tree = ast.parse(source, file)
    tree.body = [statement for statement in tree.body if not _is_main_guard(statement)]
    running: ast.Module = _Running().visit(tree)
    return running


class _Running(ast.NodeTransformer):
    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return self.generic_visit(ast.copy_location(ast.Assign([node.target], node.value), node))

    def visit_Import(self, node: ast.Import) -> ast.AST:
        typing = all(alias.name in TYPING for alias in node.names)
        return ast.copy_location(ast.Pass(), node) if typing else node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        return ast.copy_location(ast.Pass(), node) if node.module in TYPING else node


def _is_main_guard(statement: ast.stmt) -> bool:
    """Whether it is ``if __name__ == "__main__"``, which runs in a script only."""
    return isinstance(statement, ast.If) and ast.unparse(statement.test) in (
        "__name__ == '__main__'",
        "'__main__' == __name__",
    )


def dotted(node: ast.expr) -> tuple[str, str]:
    """("np", "linalg.norm") for ``np.linalg.norm``; two empty texts for anything but attributes of a name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return (node.id, ".".join(reversed(parts))) if isinstance(node, ast.Name) else ("", "")


def _invalid(error: SyntaxError | tokenize.TokenError) -> Violation:
    return Violation(getattr(error, "lineno", None) or 1, f"not valid Python: {getattr(error, 'msg', error)}")


def _foreign_names(source: str) -> list[Violation]:
    """Python reads full-width letters as plain ones (NFKC), so outside strings and comments only ASCII passes."""
    return [
        Violation(token.start[0], f"{token.string!r} is not ASCII; use plain letters in names")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in (tokenize.STRING, tokenize.COMMENT) and not token.string.isascii()
    ]


def _scopes(source: str) -> list[Violation]:
    """What is wrong with names: duplicate parameters, walrus targets. Tables of symbols are built without compiling."""
    try:
        symtable.symtable(source, "<sub-task>", "exec")
    except SyntaxError as error:
        return [_invalid(error)]
    return []


def _uncompilable(tree: ast.Module) -> Iterator[Violation]:
    """What parses but does not compile, of all that the policy does not refuse anyway."""
    yield from _loops(tree.body, 0)
    for node in ast.walk(tree):
        match node:
            case ast.Call(keywords=keywords):
                names = Counter(keyword.arg for keyword in keywords if keyword.arg is not None)
                for name in (name for name, count in names.items() if count > 1):
                    yield Violation(node.lineno, f"not valid Python: keyword argument repeated: {name}")
            case ast.comprehension(is_async=1):
                yield Violation(node.target.lineno, "a program may not use async; define a plain function")
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Starred) and not _may_be_starred(node, child):
                yield Violation(child.lineno, "not valid Python: `*` cannot stand here")


def _may_be_starred(parent: ast.AST, child: ast.Starred) -> bool:
    if isinstance(parent, ast.Tuple | ast.List) and isinstance(child.ctx, ast.Store):
        before = parent.elts[: parent.elts.index(child)]
        return len(before) <= MAX_BEFORE_STARRED and not any(isinstance(other, ast.Starred) for other in before)
    return isinstance(parent, ast.Tuple | ast.List | ast.Set | ast.Call)


def _loops(body: list[ast.stmt], depth: int) -> Iterator[Violation]:
    """``break`` and ``continue`` without a loop, and loops in too many others."""
    for statement in body:
        match statement:
            case ast.Break() | ast.Continue():
                if depth == 0:
                    word = type(statement).__name__.lower()
                    yield Violation(statement.lineno, f"not valid Python: '{word}' outside a loop")
            case ast.For():
                if depth >= MAX_LOOPS:
                    yield Violation(statement.lineno, "too many loops within loops; write a function")
                else:
                    yield from _loops(statement.body, depth + 1)
                    yield from _loops(statement.orelse, depth)
            case ast.If():
                yield from _loops(statement.body, depth)
                yield from _loops(statement.orelse, depth)
            case ast.FunctionDef():
                yield from _loops(statement.body, 0)
