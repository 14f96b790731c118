"""Checks on the syntax tree that a program's answer depends on its two frames alone.

It could also depend on three things: memory that was never written, the clock, and addresses. All of them are options
or properties of functions, so a function must be called by name, with the options that matter written out:

- a function is not a value: a call under another name could not be checked, and a text or a set would show its address;
- an iterator (``zip``, a generator) is not a value either, for the same reason;
- a ``dtype`` is a kind of numbers, since other kinds turn "now" into the time;
- ``where=`` and ``np.pad`` leave no element unwritten.
"""

import ast
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping

from carl.sandbox.names import (
    BUILTINS,
    CONSUMERS,
    CONSUMING_METHODS,
    DTYPE_AT,
    DTYPES,
    FIELDS,
    GRIDS,
    ITERATORS,
    MASKED,
    METHOD_DTYPE_AT,
    METHODS,
    NUMBERS,
    NUMPY_FUNCTIONS,
    PADDINGS,
    modules,
    ufuncs,
)
from carl.sandbox.source import Violation, dotted

ARRAYS = frozenset({"copy", "astype"})
"""Methods that give an array whatever they are called on."""

TELLING = frozenset({"astype", "keys", "items"})
"""Methods that may only be called by name, so that their object is visible."""

MASKING = "`where=` leaves what it does not name unwritten; give `out=np.zeros(...)` too, or use np.where"
TYPES = "write the kind of numbers out where it is used, as `np.float32`, `int` or `x.dtype`"
PADDING = f"write the mode of np.pad out, as one of {', '.join(sorted(PADDINGS))}"
VALUE = "is a function, not a value; call it by its name, or give it to `key=` or `map`"
ONCE = "can be gone through once only; write it where that happens, as in `for` or `list(...)`"

Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
Options = Mapping[str | None, ast.expr]
"""Arguments that are given by name."""

PLAIN, UNKNOWN = ast.Constant("constant"), ast.Constant(...)
"""The default of np.pad's mode; and the stand-in for a value that is not written out."""

Scope = ast.Module | ast.FunctionDef | ast.Lambda | Comprehension


def impurities(tree: ast.Module) -> Iterator[Violation]:
    """Every violation of the rules above."""
    names = _Names(tree)
    uses = _Uses(tree, names)
    options = _Options(tree)
    for node, scopes in _scoped(tree, (tree,)):
        if uses.is_loose_function(node, scopes):
            yield Violation(node.lineno, f"`{ast.unparse(node)}` {VALUE}")
        if uses.is_loose_iterator(node):
            yield Violation(node.lineno, f"`{ast.unparse(node)}` {ONCE}")
        if isinstance(node, ast.Call):
            yield from (Violation(node.lineno, message) for message in options.refused(node))


def _scoped(node: ast.AST, scopes: tuple[Scope, ...]) -> Iterator[tuple[ast.expr, tuple[Scope, ...]]]:
    """Every expression with its enclosing scopes, outermost first."""
    for child in ast.iter_child_nodes(node):
        seen = scopes[:-1] if _is_outermost(node, child, scopes[-1]) else scopes
        if isinstance(child, ast.expr):
            yield child, seen
        yield from _scoped(child, (*seen, child) if isinstance(child, Scope) else seen)


def _is_outermost(node: ast.AST, child: ast.AST, scope: Scope) -> bool:
    """Whether ``child`` is a default, or what a comprehension goes through first: both are looked up outside of it."""
    if isinstance(node, ast.arguments):
        return isinstance(child, ast.expr)
    return isinstance(scope, Comprehension) and node is scope.generators[0] and child is scope.generators[0].iter


class _Names:
    """The meaning of names, by scope."""

    def __init__(self, tree: ast.Module) -> None:
        self._known: dict[int, tuple[set[str], set[str]]] = {}
        self._all = _bound(ast.walk(tree))

    def is_function(self, name: str, scopes: Iterable[Scope]) -> bool:
        """Whether it is one of the program's own functions, named lambdas included."""
        for scope in reversed(tuple(scopes)):
            functions, values = self._of(scope)
            if name in functions:
                return True
            if name in values:
                return False
        return False

    def is_builtin(self, name: str) -> bool:
        """Whether the program leaves the name to the built-in function, wherever it is."""
        return name in BUILTINS and name not in self._all

    def _of(self, scope: Scope) -> tuple[set[str], set[str]]:
        if id(scope) not in self._known:
            self._known[id(scope)] = _functions_and_values(scope)
        return self._known[id(scope)]


def _bound(nodes: Iterable[ast.AST]) -> set[str]:
    """Names that some of ``nodes`` bind."""
    names = set()
    for node in nodes:
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.FunctionDef(name=name) | ast.arg(arg=name):
                names.add(name)
    return names


def _functions_and_values(scope: Scope) -> tuple[set[str], set[str]]:
    """Names that are bound in ``scope`` itself: to functions, and to anything."""
    functions: set[str] = set()
    values: set[str] = set()
    for node in _within(scope):
        match node:
            case ast.FunctionDef(name=name):
                functions.add(name)
            case ast.Assign(targets=targets, value=ast.Lambda()):
                functions |= {target.id for target in targets if isinstance(target, ast.Name)}
        if not isinstance(node, ast.FunctionDef):
            values |= _bound([node])
    return functions, values


def _within(scope: Scope) -> Iterator[ast.AST]:
    """What is in ``scope`` but not in a scope in it; and the walrus targets of comprehensions there, which leak."""
    waiting = list(ast.iter_child_nodes(scope))
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, Comprehension):
            waiting += [inner.target for inner in _leaking(node)]
        elif not isinstance(node, Scope):
            waiting += ast.iter_child_nodes(node)


def _leaking(node: ast.AST) -> Iterator[ast.NamedExpr]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.NamedExpr):
            yield child
        if not isinstance(child, ast.Lambda):
            yield from _leaking(child)


class _Uses:
    """The use of each expression: it is called, it is iterated over, or it is a value."""

    def __init__(self, tree: ast.Module, names: _Names) -> None:
        self._names = names
        self._called: set[int] = set()
        self._consumed: set[int] = set()
        for node in ast.walk(tree):
            self._note(node)

    def is_loose_function(self, node: ast.expr, scopes: Iterable[Scope]) -> bool:
        """Whether it is a function that is neither called here nor passed to a function that calls it."""
        if id(node) in self._called:
            return False
        match node:
            case ast.Lambda():
                return True
            case ast.Name(id=name, ctx=ast.Load()):
                return self._names.is_function(name, scopes) or self._is(node, ITERATORS)
            case ast.Attribute(attr=attr):
                module, path = dotted(node)
                if module in modules():
                    return module == "vision" or (module == "np" and path in NUMPY_FUNCTIONS | GRIDS)
                return attr in METHODS - FIELDS
        return False

    def is_loose_iterator(self, node: ast.expr) -> bool:
        """Whether it is an iterator that is not consumed here."""
        makes = isinstance(node, ast.GeneratorExp) or (isinstance(node, ast.Call) and self._is(node.func, ITERATORS))
        return makes and id(node) not in self._consumed

    def _is(self, node: ast.expr, names: Container[str]) -> bool:
        """Whether it is one of these built-in functions."""
        return isinstance(node, ast.Name) and node.id in names and self._names.is_builtin(node.id)

    def _note(self, node: ast.AST) -> None:
        match node:
            case ast.Call():
                self._called.add(id(node.func))
                self._called.update(map(id, self._callbacks(node)))
                self._consumed.update(map(id, self._gone_through(node)))
            case ast.Assign(targets=targets, value=ast.Lambda() as value):
                if all(isinstance(target, ast.Name) for target in targets):
                    self._called.add(id(value))  # the name is a function's from here on
            case ast.Assign(targets=targets, value=value):
                if all(isinstance(target, ast.Tuple | ast.List) for target in targets):
                    self._consumed.add(id(value))
            case ast.For(iter=value) | ast.comprehension(iter=value) | ast.Starred(value=value, ctx=ast.Load()):
                self._consumed.add(id(value))
            case ast.Compare(ops=ops, comparators=compared):
                pairs = zip(ops, compared, strict=True)
                self._consumed.update(id(value) for op, value in pairs if isinstance(op, ast.In | ast.NotIn))
            case ast.Attribute(value=ast.Attribute() as value) if dotted(node)[0] in modules():
                self._called.add(id(value))  # np.add of np.add.reduce
            case ast.Subscript(value=ast.Attribute() as value) if dotted(value)[1] in GRIDS:
                self._called.add(id(value))

    def _callbacks(self, call: ast.Call) -> Iterator[ast.expr]:
        """Arguments that ``call`` calls, those of a module with one argument only: options come later."""
        if self._is(call.func, ("max", "min", "sorted")) or _method(call) == "sort":
            found = [keyword.value for keyword in call.keywords if keyword.arg == "key"]
        elif self._is(call.func, ("map", "filter")):
            found = call.args[:1]
        else:
            return
        for node in found:
            several = isinstance(node, ast.Attribute) and len(call.args) > 2
            telling = isinstance(node, ast.Attribute) and node.attr in TELLING
            if not (several or telling or self._is(node, ITERATORS)):
                yield node

    def _gone_through(self, call: ast.Call) -> list[ast.expr]:
        """Arguments that ``call`` goes through before it returns, or that are gone through with what it gives."""
        arguments = call.args
        if self._is(call.func, ("zip",)) or _method(call) in CONSUMING_METHODS:
            return arguments
        if self._is(call.func, ("map", "filter")):
            return arguments[1:]
        if self._is(call.func, ("max", "min")) and len(arguments) > 1:
            return []
        return arguments[:1] if self._is(call.func, CONSUMERS) or dotted(call.func) == ("math", "fsum") else []


def _method(call: ast.Call) -> str:
    """The name of the method that is called; "" if it is a function."""
    if isinstance(call.func, ast.Attribute) and dotted(call.func)[0] not in modules():
        return call.func.attr
    return ""


class _Options:
    """Whether calls write out the options that matter."""

    def __init__(self, tree: ast.Module) -> None:
        self._assigned = _assigned(tree)

    def refused(self, call: ast.Call) -> Iterator[str]:
        """What is wrong with the options of ``call``."""
        module, path = dotted(call.func)
        options = {keyword.arg: keyword.value for keyword in call.keywords}
        if module == "np":
            yield from self._types(call, options, DTYPE_AT.get(path))
            if "where" in options and not self._writes_all(call, options, path):
                yield MASKING
            if path == "pad" and not self._are(_at(call, options, 2, "mode") or [PLAIN], _is_padding):
                yield PADDING
            if options.keys() & {"signature", "sig"}:
                yield TYPES
        elif method := _method(call):
            yield from self._types(call, options, METHOD_DTYPE_AT.get(method))
            if "where" in options and method not in MASKED:
                yield MASKING

    def _types(self, call: ast.Call, options: Options, place: int | None) -> Iterator[str]:
        if not self._are(_at(call, options, place, "dtype"), _is_type):
            yield TYPES

    def _writes_all(self, call: ast.Call, options: Options, path: str) -> bool:
        if path not in ufuncs():
            return path in MASKED or path.endswith(".reduce")
        out = _at(call, options, ufuncs()[path], "out")
        return bool(out) and self._are(out, _is_array)

    def _are(self, nodes: Iterable[ast.expr], kind: Callable[[ast.expr], bool]) -> bool:
        """Whether all are of this kind, as they stand here or whatever their names are bound to."""
        return all(kind(bound) for node in nodes for bound in self._meant(node))

    def _meant(self, node: ast.expr) -> list[ast.expr]:
        return self._assigned.get(node.id, [node]) if isinstance(node, ast.Name) else [node]


def _at(call: ast.Call, options: Options, place: int | None, name: str) -> list[ast.expr]:
    """What is given for a parameter, by its place or its name; a starred argument before it may be that as well."""
    given = [options[name]] if name in options else []
    if place is None:
        return given
    return given + call.args[place : place + 1] + [node for node in call.args[:place] if isinstance(node, ast.Starred)]


def _assigned(tree: ast.Module) -> dict[str, list[ast.expr]]:
    """What each name is bound to, wherever it is; ``UNKNOWN`` is in place of all that is not written out."""
    found: defaultdict[str, list[ast.expr]] = defaultdict(list)
    plain: set[int] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    if isinstance(target, ast.Name):
                        found[target.id].append(value)
                        plain.add(id(target))
    for node in ast.walk(tree):
        if id(node) not in plain:
            for name in _bound([node]):
                found[name].append(UNKNOWN)
    return dict(found)


def _is_type(node: ast.expr) -> bool:
    """Whether it is a kind of numbers, or the kind of another array's."""
    match node:
        case ast.Constant(value=None) | ast.Name(id="bool" | "int" | "float"):
            return True
        case ast.Constant(value=str(name)):
            return name.lstrip("<>=|") in DTYPES
        case ast.IfExp(body=body, orelse=orelse):
            return _is_type(body) and _is_type(orelse)
        case ast.Attribute(attr=attr):
            module, path = dotted(node)
            return path in NUMBERS if module in modules() else attr == "dtype"
    return False


def _is_array(node: ast.expr) -> bool:
    """Whether it is an array and not None, whatever happens."""
    if isinstance(node, ast.Call):
        module, path = dotted(node.func)
        return (module == "np" and path in NUMPY_FUNCTIONS) or _method(node) in ARRAYS
    return isinstance(node, ast.BinOp)


def _is_padding(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value in PADDINGS
