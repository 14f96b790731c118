"""The static policy: what the code of a sub-task may contain, checked before any of it runs.

It returns a model's mistakes as a list of changes to make, and is a first line of defence. The boundary against hostile
code is the process that runs it (``carl.sandbox.box``).
"""

import ast
import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

from carl.errors import ProgramError
from carl.program import FUNCTION, RewardProgram
from carl.sandbox.names import BUILTINS, IMPORTS, INSTEAD_OF, attributes, modules
from carl.sandbox.purity import impurities
from carl.sandbox.source import Violation, dotted, read

GROWING: dict[type[ast.operator], int] = {ast.Pow: 8, ast.LShift: 63}
"""Operators that make numbers of any length, and the largest literal that may stand on their right."""

PARAMETERS = ("frame", "initial")

INSTEAD: dict[type[ast.AST], str] = {
    ast.While: "a while loop; use a for loop over a range or a list",
    ast.Try: "try; test for the case beforehand, as in `if len(found) == 0: return 0.0`",
    ast.Raise: "raise; return a number in [0, 1] in every case",
    ast.Assert: "assert; return a number in [0, 1] in every case",
    ast.ClassDef: "a class; use plain functions",
    ast.With: "with; nothing here needs a context manager, and numpy warns of nothing",
    ast.Global: "global; a program remembers nothing between calls",
    ast.Nonlocal: "nonlocal; return the value instead",
    ast.Delete: "del; it is not needed",
    ast.JoinedStr: "an f-string; a program returns a number, not text",
    ast.Match: "match; use if and elif",
    ast.Yield: "yield; build a list",
    ast.YieldFrom: "yield; build a list",
    ast.AsyncFunctionDef: "async; define a plain function",
    ast.Await: "await; define a plain function",
    ast.Import: "an import inside a function; put it at the top of the source",
    ast.ImportFrom: "an import inside a function; put it at the top of the source",
}
"""The names of common refused constructs, and what to write instead."""

HARMLESS = (
    # statements
    *(ast.Assign, ast.AugAssign, ast.For, ast.If, ast.Return, ast.Expr, ast.Pass, ast.Break),
    *(ast.Continue, ast.NamedExpr, ast.Starred, ast.Call),
    # expressions
    *(ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.IfExp, ast.Subscript, ast.Slice),
    *(ast.Tuple, ast.List, ast.Set, ast.Dict, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
    *(ast.comprehension, ast.expr_context, ast.boolop, ast.operator, ast.unaryop, ast.cmpop),
)
"""Node types that are allowed if their parts are."""


def violations(source: str) -> list[Violation]:
    """Everything that the policy refuses in a sub-task's code, by line; empty if it may run."""
    return [*_violations(source)]


@lru_cache(maxsize=256)  # a program's code is checked by its rule, and again by each of its boxes
def _violations(source: str) -> Sequence[Violation]:
    tree, found = read(source)
    if tree is None:
        return found
    checker = _Checker(tree)
    try:
        checker.check_module(tree)
        return sorted({*found, *checker.found, *impurities(tree)})
    except RecursionError:
        return [Violation(1, "nested too deeply; write it in several statements")]


def check_program(program: RewardProgram) -> None:
    """Raise ProgramError with every violation in every sub-task of ``program``."""
    lines = [
        f"sub-task {index} ({subtask.name!r}), {violation}"
        for index, subtask in enumerate(program.subtasks, 1)
        for violation in violations(subtask.code)
    ]
    if lines:
        raise ProgramError("the static policy refuses the program:\n" + "\n".join(lines))


def _bound_names(tree: ast.Module) -> set[str]:
    """Every name that the code binds, in any scope."""
    stored = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    return stored | functions | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}


class _Checker(ast.NodeVisitor):
    """Collects the violations in one tree; every node type that is not named here is refused."""

    def __init__(self, tree: ast.Module) -> None:
        self.found: list[Violation] = []
        self._modules = modules()
        self._attributes = attributes()
        self._bound = _bound_names(tree)

    def _refuse(self, node: ast.AST, message: str) -> None:
        self.found.append(Violation(getattr(node, "lineno", 1), message))

    def generic_visit(self, node: ast.AST) -> None:
        if not isinstance(node, HARMLESS):
            called = INSTEAD.get(type(node), f"{type(node).__name__}; write it with simpler means")
            self._refuse(node, f"a program may not use {called}")
        else:
            super().generic_visit(node)

    # -- the top level

    def check_module(self, tree: ast.Module) -> None:
        for statement in tree.body:
            self._check_top(statement)
        defined = Counter(statement.name for statement in tree.body if isinstance(statement, ast.FunctionDef))
        if defined[FUNCTION] != 1:
            self._refuse(
                tree, f"define exactly one function `def {FUNCTION}({', '.join(PARAMETERS)})` at the top level"
            )
        for name in sorted(name for name, count in defined.items() if count > 1 and name != FUNCTION):
            self._refuse(tree, f"`{name}` is defined more than once")

    def _check_top(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Import() | ast.ImportFrom():
                self._check_import(statement)
            case ast.FunctionDef(name=name):
                self.visit(statement)
                if name == FUNCTION:
                    self._check_entry(statement)
            case ast.Assign() | ast.Pass() | ast.Expr(value=ast.Constant()):
                self.visit(statement)
            case _ if type(statement) in INSTEAD:
                self.visit(statement)
            case _:
                self._refuse(statement, "at the top level only imports, functions and assignments may stand")

    def _check_import(self, statement: ast.Import | ast.ImportFrom) -> None:
        lines = [ast.unparse(statement)]
        if isinstance(statement, ast.Import):
            lines = [ast.unparse(ast.Import([alias])) for alias in statement.names]
        allowed = ", ".join(f"`{line}`" for line in IMPORTS)
        for line in lines:
            if line not in IMPORTS:
                self._refuse(statement, f"`{line}` is not allowed; a program imports only {allowed}")

    def _check_entry(self, function: ast.FunctionDef) -> None:
        parameters = function.args
        extra = parameters.posonlyargs or parameters.kwonlyargs or parameters.vararg or parameters.kwarg
        if tuple(arg.arg for arg in parameters.args) != PARAMETERS or extra or parameters.defaults:
            self._refuse(function, f"its parameters have to be exactly `{FUNCTION}({', '.join(PARAMETERS)})`")
        if not any(isinstance(node, ast.Return) and node.value is not None for node in ast.walk(function)):
            self._refuse(function, f"`{FUNCTION}` returns nothing; return a number in [0, 1]")

    # -- functions

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._check_bound(node, node.name, rebinds=False)
        for decorator in node.decorator_list:
            self._refuse(decorator, "a decorator is not allowed; call the function")
        self._check_arguments(node.args)
        for statement in node.body:
            self.visit(statement)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._check_arguments(node.args)
        self.visit(node.body)

    def _check_arguments(self, arguments: ast.arguments) -> None:
        named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        for arg in [*named, *(arg for arg in (arguments.vararg, arguments.kwarg) if arg)]:
            self._check_bound(arg, arg.arg)
        for default in [*arguments.defaults, *(default for default in arguments.kw_defaults if default)]:
            self.visit(default)
            if any(isinstance(node, ast.NamedExpr) for node in ast.walk(default)):
                self._refuse(default, "a default may not bind a name; do that in a statement before")

    # -- names, attributes and calls

    def _check_bound(self, node: ast.AST, name: str, rebinds: bool = True) -> None:
        if "__" in name:
            self._refuse(node, f"`{name}` contains two underscores in a row; call it something else")
        if name in self._modules:
            self._refuse(node, f"`{name}` is a module's name and must keep meaning that; call it something else")
        if rebinds and name == FUNCTION:
            self._refuse(node, f"`{FUNCTION}` is the function's name; call the variable something else")

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._check_bound(node, node.id)
        elif node.id in self._modules:
            self._refuse(node, f"a module is not a value; write `{node.id}.` and the name of a function")
        elif node.id not in self._bound and node.id not in BUILTINS:
            what = f"`{node.id}` is not defined, and not one of the built-in functions a program may use"
            self._refuse(node, what + INSTEAD_OF.get(node.id, ""))
        elif "__" in node.id:
            self._refuse(node, f"`{node.id}` is not available to a program")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        module, path = dotted(node)
        if not isinstance(node.ctx, ast.Load):
            self._refuse(node, f"assigning to the attribute `.{node.attr}` is not allowed; use a variable")
        elif module not in self._modules:
            if node.attr not in self._attributes:
                self._refuse(node, f"the attribute `.{node.attr}` is not allowed")
            self.visit(node.value)
        elif path not in self._modules[module]:  # "np.linalg.norm" has to be listed whole; "np.linalg" is not
            name = f"{module}.{path}"
            self._refuse(node, f"`{name}` is not one of the functions that a program may use{INSTEAD_OF.get(name, '')}")

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg is None:
            self._refuse(node.value, "`**` in a call is not allowed; name the arguments")
        elif "__" in node.arg:
            self._refuse(node.value, f"the argument name `{node.arg}` is not allowed")
        self.visit(node.value)

    # -- values

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bytes | complex):
            self._refuse(node, f"a {type(node.value).__name__} literal is not allowed; use numbers")

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self._check_growth(node, node.op, node.right)
        super().generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._check_growth(node, node.op, node.value)
        super().generic_visit(node)

    def _check_growth(self, node: ast.AST, operator: ast.operator, operand: ast.expr) -> None:
        limit = GROWING.get(type(operator), math.inf)
        try:
            small = abs(float(ast.literal_eval(operand))) <= limit
        except (ValueError, TypeError, OverflowError):
            small = math.isinf(limit)
        if not small:
            self._refuse(node, f"`**` and `<<` need a literal number of at most {limit} on their right; or np.power")


Policy = Callable[[RewardProgram], None]
"""A check that raises ProgramError for a program that may not run."""
