"""Sets of programs hold what Python's own would, in the order in which it came."""

import ast
import operator

import numpy as np
import pytest

from carl.sandbox.child import SubTaskCode, namespace
from carl.sandbox.ordered import FrozenOrderedSet, OrderedSet, rewritten

OPERATORS = [
    operator.or_,
    operator.and_,
    operator.sub,
    operator.xor,
    operator.le,
    operator.lt,
    operator.ge,
    operator.eq,
]
METHODS = ["union", "intersection", "difference", "issubset", "issuperset", "update"]
ELEMENTS = [([3, 1, 2], [2, 5]), ([], [1]), ([1, 2], [2, 1]), ([1], [1, 4, 0]), ([4, 1, 4], [])]


@pytest.mark.parametrize(("one", "other"), ELEMENTS)
def test_they_hold_what_python_s_own_sets_hold(one, other):
    for kind, own in ((OrderedSet, set), (FrozenOrderedSet, frozenset)):
        for operate in OPERATORS:
            expected = operate(own(one), own(other))
            found = operate(kind(one), kind(other))
            assert found == (expected if isinstance(expected, bool) else kind(expected))
    for method in METHODS:
        mine, theirs = OrderedSet(one), set(one)
        found, expected = getattr(mine, method)(other), getattr(theirs, method)(other)
        assert found == (OrderedSet(expected) if isinstance(expected, set) else expected)
        assert set(mine) == theirs


def test_they_change_as_python_s_own():
    some = OrderedSet([3, 1])
    copy = some.copy()
    some.add(2)
    some.discard(9)
    some.remove(3)
    some |= OrderedSet([5])
    assert (list(some), list(copy), len(some), 2 in some, 3 in some) == ([1, 2, 5], [3, 1], 3, True, False)
    assert (some.pop(), list(some)) == (1, [2, 5])
    with pytest.raises(KeyError):
        some.remove(1)
    with pytest.raises(TypeError, match="unhashable"):
        hash(some)
    assert {FrozenOrderedSet([1, 2]): "found"}[FrozenOrderedSet([2, 1])] == "found"


MADE = [
    "{*things}",
    "{thing for thing in things}",
    "set(things)",
    "frozenset(things)",
    "{things[0]} | {*things}",
    "set().union(things)",
    "{thing: 1 for thing in things}.keys()",
    "{thing: 1 for thing in things}.keys() | {None}",
    "[thing for thing, _ in {thing: 1 for thing in things}.items()]",
]


@pytest.mark.parametrize("made", MADE)
def test_they_keep_the_order_in_which_things_came_whose_hash_is_an_address(made):
    source = f"""
def progress(frame, initial):
    things = [len, None, math.nan, np.float64('nan'), 'a', np.sum, 7, (None, 1), progress, ...]
    return [id(thing) for thing in {made}] == [id(thing) for thing in things]
"""
    frame = np.zeros((1, 1, 3), np.uint8)
    names = namespace() | {"id": id}
    assert SubTaskCode(1, source, names).judge(frame, frame) == (1.0, "")


def test_a_program_that_is_rewritten_keeps_its_lines():
    source = "x = {\n    1,\n    *y,\n}\nz = {\n    a / 0\n    for a in x.keys()\n}\n"
    kept = [(type(node), node.lineno) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.BinOp | ast.Call)]
    assert set(kept) < {(type(node), getattr(node, "lineno", 0)) for node in ast.walk(rewritten(ast.parse(source)))}


def test_nothing_at_the_top_of_a_program_outlasts_a_call():
    source = """
SEEN = []
TABLE = {"calls": 0}

def progress(frame, initial):
    SEEN.append(1)
    TABLE["calls"] += 1
    return (len(SEEN) + TABLE["calls"]) / 4
"""
    code, frame = SubTaskCode(1, source, namespace()), np.zeros((1, 1, 3), np.uint8)
    assert [code.judge(frame, frame) for _ in range(3)] == [(0.5, "")] * 3
