"""The static policy refuses every known way out, and lets through what models really write."""

import ast
import inspect
import math
from contextlib import suppress
from operator import attrgetter

import cv2
import numpy as np
import pytest

from carl.errors import ProgramError
from carl.nano import programs as nano
from carl.program import RewardProgram, SubTask
from carl.sandbox.names import (
    BUILTINS,
    CV2,
    DTYPE_AT,
    FIELDS,
    INSTEAD_OF,
    MATH,
    METHOD_DTYPE_AT,
    METHODS,
    NUMPY,
    NUMPY_FUNCTIONS,
    vision_functions,
)
from carl.sandbox.policy import check_program, violations


def body(*lines: str, top: str = "") -> str:
    """A source whose function has these lines before it returns."""
    return f"{top}\ndef progress(frame, initial):\n" + "".join(f"    {line}\n" for line in lines) + "    return 0.0\n"


HOSTILE = {
    # modules that leak from modules, and modules as values
    "cv2.os": body("cv2.os.system('id')"),
    "np.f2py": body("np.f2py.subprocess.run(['id'])"),
    "np.ctypeslib": body("np.ctypeslib.ctypes"),
    "np.ma builtins": body("np.ma.core.builtins.open('/etc/passwd')"),
    "np.linalg as value": body("x = np.linalg"),
    "module as value": body("x = np", "x.load('a')"),
    "module as argument": body("max([np], key=len)"),
    "module in a list": body("[np][0].load('a')"),
    "module by walrus": body("(x := cv2).imread('a')"),
    "module as default": body("f = lambda m=np: m.load('a')"),
    "vision's imports": body("vision.cv2.imread('a')"),
    "vision private": body("vision._bytes(frame)"),
    "shadowed module": body("np = 3"),
    "module as parameter": "def f(cv2):\n    return 0\n" + body(),
    "loop over modules": body("for math in [np]:", "    pass"),
    # imports
    "import os": body(top="import os"),
    "import subprocess alias": body(top="import subprocess as np"),
    "import numpy bare": body(top="import numpy"),
    "import numpy.f2py": body(top="import numpy.f2py as np"),
    "from numpy": body(top="from numpy import load"),
    "star": body(top="from numpy import *"),
    "carl elsewhere": body(top="from carl import errors"),
    "carl aliased": body(top="from carl import vision as np"),
    "two at once": body(top="import math, os"),
    "import inside": body("import os"),
    # code from strings
    "eval": body("eval('1')"),
    "exec": body("exec('1')"),
    "compile": body("compile('1', '', 'eval')"),
    "__import__": body("__import__('os')"),
    "np.testing": body("np.testing.runstring('import os', {})"),
    "np.vectorize": body("np.vectorize(len)"),
    # files
    "open": body("open('/etc/passwd')"),
    **{
        f"np.{name}": body(f"np.{name}('a')")
        for name in ("load", "save", "memmap", "genfromtxt", "fromfile", "loadtxt")
    },
    "tofile": body("frame.tofile('a')"),
    "dump": body("frame.dump('a')"),
    **{f"cv2.{name}": body(f"cv2.{name}('a')") for name in ("imread", "imwrite", "VideoCapture", "FileStorage")},
    "ORB.save": body("cv2.ORB_create().save('a')"),
    "cv2.dnn": body("cv2.dnn.readNet('a')"),
    "cv2.imshow": body("cv2.imshow('a', frame)"),
    # raw memory
    "as_strided": body("np.lib.stride_tricks.as_strided(frame, (9, 9), (99, 99))"),
    ".ctypes": body("frame.ctypes.data"),
    "__array_interface__": body("frame.__array_interface__"),
    "np.ndarray": body("np.ndarray((9,), buffer=frame)"),
    "np.frombuffer": body("np.frombuffer(b'a')"),
    ".data": body("frame.data"),
    ".view": body("frame.view()"),
    # introspection
    "dunder attribute": body("frame.__class__"),
    "dunder name": body("__builtins__"),
    "dunder variable": body("__x = 1"),
    "dunder keyword": body("f = dict(__class__=1)"),
    "getattr": body("getattr(frame, 'tofile')"),
    "type": body("type(frame)"),
    "globals": body("globals()"),
    "vars": body("vars(frame)"),
    "str.format": body("'{0.__class__}'.format(frame)"),
    "format_map": body("'{a}'.format_map({})"),
    "f-string": body("f'{frame!r:>{9}}'"),
    "gi_frame": body("(x for x in [1]).gi_frame"),
    "function globals": body("progress.func_globals"),
    "except as": body("try:", "    x = 1", "except Exception as e:", "    e.obj"),
    "bare except": body("try:", "    x = 1", "except:", "    pass"),
    "match": body("match frame:", "    case object(__globals__=g):", "        pass"),
    "class": body(top="class A:\n    pass"),
    "full-width eval": body("ｅval('1')"),  # noqa: RUF001
    "full-width attribute": body("frame.ｔofile('a')"),  # noqa: RUF001
    "not ASCII": body("größe = 1"),
    "with": body("with frame as f:", "    pass"),
    # state
    "frame.base": body("frame.base"),
    "setflags": body("frame.setflags(write=True)"),
    "flags": body("frame.flags.writeable"),
    "np.random": body("np.random.seed(0)"),
    "np.random draw": body("np.random.rand()"),
    "cv2.setNumThreads": body("cv2.setNumThreads(9)"),
    "cv2.kmeans": body("cv2.kmeans(frame, 2, None, (3, 10, 1.0), 3, 0)"),
    "np.seterr": body("np.seterr(all='raise')"),
    "list default": "def progress(frame, initial, seen=[]):\n    return 0.0\n",
    "decorator": "@len\n" + body().lstrip(),
    "global": body("global x", "x = 1"),
    "nonlocal": body("def f():", "    nonlocal x", "x = 1"),
    "function attribute": body("progress.count = 1"),
    "attribute by loop": body("for progress.x in [1]:", "    pass"),
    "attribute of a module": body("np.pi = 3"),
    "del": body("del frame"),
    # burning
    "9**9**9": body("9**9**9"),
    "x **= ": body("x = 9", "x **= x"),
    "shift": body("1 << 9**8"),
    "variable exponent": body("len(frame) ** len(frame)"),
    "while": body("while True:", "    pass"),
    "factorial": body("math.factorial(99999)"),
    # not what was asked for
    "yield": body("yield 1"),
    "async": "async def progress(frame, initial):\n    return 0.0\n",
    "print": body("print(frame)"),
    "raise": body("raise frame"),
    "assert": body("assert True"),
    "double star": body("dict(**{'a': 1})"),
    "bytes": body("b'a'"),
    "undefined": body("goal + 1"),
    "code at the top": body(top="for i in range(9):\n    pass"),
    "main guard": body() + "if 1:\n    pass\n",
    "no function": "x = 1\n",
    "other name": "def reward(frame, initial):\n    return 0.0\n",
    "nested only": "def f():\n    def progress(frame, initial):\n        return 0.0\n",
    "twice": body() + body(),
    "one parameter": "def progress(frame):\n    return 0.0\n",
    "varargs": "def progress(*args):\n    return 0.0\n",
    "no return": "def progress(frame, initial):\n    x = 1\n",
    "stray return": "return 1\n" + body(),
    "stray break": body("break"),
    "prose": "The agent moves to the goal.",
    "half a block": "def progress(frame, initial):\n    return (0.0",
    "another language": "function progress(frame, initial) { return 0; }",
    "null byte": body("x = '\0'"),
    "deep nesting": body("x = " + "-" * 5000 + "1"),
    "too long": body("x = 1  # " + "x" * 30_000),
    "a function of typing as a value": body("x = List[int]", top="from typing import List"),
}


IMPURE = {
    # memory as it was left
    "np.empty": body("x = np.empty(9)"),
    "np.empty_like": body("x = np.empty_like(frame)"),
    "where without out": body("x = np.sqrt(frame, where=frame > 3)"),
    "where, its keywords hidden": body("x = np.divide(frame, 3, where=frame > 3, dtype=np.float32)"),
    "where, out is None": body("x = np.sqrt(frame, where=frame > 3, out=None)"),
    "where, out is None in order": body("x = np.add(frame, 1, None, where=frame > 3)"),
    "where, out by another name": body("y = None", "x = np.sqrt(frame, where=frame > 3, out=y)"),
    "where, out perhaps": body("y = np.zeros(3)", "if frame.any():", "    y = None", "x = np.sqrt(3, where=y, out=y)"),
    "where, out a parameter": body("x = np.sqrt(frame, where=frame > 3, out=initial)"),
    "where, arguments in a list": body("x = np.sqrt(*[frame, None], where=frame > 3)"),
    "where of clip": body("x = np.clip(frame, 0, 1, where=frame > 3)"),
    "where of clip, as a method": body("x = frame.clip(0, 1, where=frame > 3)"),
    "padding with anything": body("x = np.pad(frame, 3, mode='empty')"),
    "padding with anything, in order": body("x = np.pad(frame, 3, 'empty')"),
    "padding with anything, put together": body("x = np.pad(frame, 3, mode='em' + 'pty')"),
    "padding with anything, sliced": body("x = np.pad(frame, 3, mode='my empty'[3:])"),
    "padding with anything, a variable": body("m = 'empty'", "x = np.pad(frame, 3, mode=m)"),
    "padding with anything, at the top": body("x = np.pad(frame, 3, mode=M)", top="M = 'empty'"),
    "padding with anything, a default": "def f(m='empty'):\n    return np.pad(3, 3, m)\n" + body(),
    "padding with anything, in a loop": body("for m in ['empty']:", "    x = np.pad(frame, 3, m)"),
    "padding with anything, in a list": body("x = np.pad(*[frame, 3, 'empty'])"),
    "padding by a function": body("x = np.pad(frame, 3, lambda *x: None)"),
    "a function by another name": body("f = np.pad", "x = f(frame, 3, mode='empty')"),
    "a function in a list": body("x = [np.sqrt][0](frame, where=frame > 3)"),
    "a function in a loop": body("for f in (np.pad, np.sum):", "    f(frame, 3, 'empty')"),
    "a function as an argument": body("def f(g):", "    return g(frame, where=frame > 3)", "f(np.sqrt)"),
    "a function that is mapped with options": body("list(map(np.pad, [frame], [3], ['empty']))"),
    "a function that is chosen": body("(np.pad if frame.any() else np.sum)(frame, 3, 'empty')"),
    "a function from a function": body("f = lambda: np.pad", "f()(frame, 3, 'empty')"),
    "a function by walrus": body("(f := np.pad)(frame, 3, 'empty')"),
    "a method by another name": body("f = frame.clip", "f(0, 1, where=frame > 3)"),
    # the clock
    "now": body("np.array('now', dtype='datetime64[s]')"),
    "now, in order": body("np.array('now', 'M8[s]')"),
    "today": body("frame.astype('<M8[D]')"),
    "today, put together": body("frame.astype('M8' + '[D]')"),
    "today, in a dictionary": body("frame.astype({'names': ['a'], 'formats': ['M8[s]']})"),
    "today, in a list of kinds": body("frame.astype('i4,M8[s]')"),
    "today, a variable": body("t = 'M8[s]'", "np.array(['now'], dtype=t)"),
    "today, a parameter": body("def f(t):", "    return np.zeros(3, t)", "f('M8[s]')"),
    "today, mapped": body("list(map(frame.astype, ['M8[s]']))"),
    "today, in a list": body("np.zeros(*[3, 'M8[s]'])"),
    "today, as a signature": body("np.add(frame, 1, signature='MM->M')"),
    "today, while summing": body("frame.sum(0, 'M8[s]')"),
    "today, while reducing": body("np.add.reduce(frame, 0, 'M8[s]')"),
    # addresses
    "a function in words": body("x = '%s' % progress"),
    "a lambda in words": body("x = '%s' % (lambda: 0)"),
    "a named lambda in words": body("f = lambda: 0", "x = '%s' % f"),
    "a method in words": body("x = '%s' % frame.copy"),
    "a function as a text": body("x = np.array(['a' * 99])", "x[0] = np.sum"),
    "a function of carl in words": body("x = '%s' % vision.band"),
    "a function in a set": body("x = list({np.sum, np.mean})"),
    "a function that is returned": body("def f():", "    return f"),
    "a function as a default": "def f():\n    return 0\n" + body("def g(f=f):", "    return '%s' % f"),
    "a function as a lambda's default": "def f():\n    return 0\n" + body("x = (lambda f=f: '%s' % f)()"),
    "a function hidden by a default": "def g(x=(f := 1)):\n    return '%s' % f\ndef f():\n    return 0\n" + body("g()"),
    "a function hidden by an annotation": "def f():\n    return 0\n" + body("y: (f := 1) = 0", "x = '%s' % f"),
    "a function hidden by the guard": "if __name__ == '__main__':\n    f = 1\ndef f():\n    return f\n" + body(),
    "a function at the top": body("x = '%s' % F[0]", top="F = [np.sum]"),
    "a function hidden by a loop": "def f():\n    return 0\n" + body("x = [0 for f in [f]]"),
    "a generator in words": body("x = '%s' % (i for i in [1])"),
    "a zip in words": body("x = '%s' % zip([1], [2])"),
    "a map in a set": body("x = {map(len, [])}"),
    "a map of zips": body("x = list(map(zip, [[1]]))"),
    "an iterator that is kept": body("x = enumerate([1])", "y = '%s' % x"),
    "an iterator that is summed to": body("x = sum([], zip([1]))"),
    "iterators by another name": body("f = zip", "x = '%s' % f([1])"),
    "a generator as an argument": body("def f(x):", "    return '%s' % x", "f(i for i in [1])"),
    "a generator in an array": body("x = np.array(i for i in [1])"),
    "key of one's own": body("def f(key):", "    return '%s' % key", "f(key=lambda: 0)"),
    "max of one's own": "def max(x, key):\n    return '%s' % key\n" + body("max(1, key=lambda: 0)"),
}
"""Harmless, but what they give does not depend on their frames alone."""


@pytest.mark.parametrize("source", [*HOSTILE.values(), *IMPURE.values()], ids=[*HOSTILE, *IMPURE])
def test_hostile_or_impure_source_is_refused(source):
    found = violations(source)
    assert found
    assert all(violation.line >= 1 and violation.message for violation in found)


BENIGN = {
    "masks": """
        import numpy as np

        def progress(frame, initial):
            '''Share of the red pixels that are gone.'''
            red = (initial[:, :, 0] > 150) & (initial[..., 1] < 80)
            if not red.any():
                return 0.0
            gone = np.abs(frame.astype(np.int16) - initial.astype(np.int16)).sum(axis=2)[red] > 60
            return float(np.clip(gone.mean(), 0.0, 1.0))
    """,
    "hsv and components": """
        import cv2
        import numpy as np

        LOW = (20, 80, 80)
        HIGH = (35, 255, 255)
        MIN_AREA = 6

        def scaled(picture, factor=1.0, offset=-1):
            return picture

        def progress(frame: np.ndarray, initial: np.ndarray) -> float:
            hsv = cv2.cvtColor(scaled(frame), cv2.COLOR_RGB2HSV)
            mask = cv2.inRange(hsv, np.array(LOW, dtype=np.uint8), np.array(HIGH, dtype=np.uint8))
            count, labels, stats, centroids = cv2.connectedComponentsWithStats(mask, connectivity=8)
            areas = [stats[i, cv2.CC_STAT_AREA] for i in range(1, count) if stats[i, cv2.CC_STAT_AREA] >= MIN_AREA]
            x, y = centroids[0]
            return 1.0 if len(areas) == 0 else min(1.0, 1.0 / (1 + sum(areas)))
    """,
    "contours and moments": """
        import cv2
        import math

        def centre(contour):
            m = cv2.moments(contour)
            if m["m00"] == 0:
                return None
            return m["m10"] / m["m00"], m["m01"] / m["m00"]

        def progress(frame, initial):
            grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
            _, binary = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
            contours, _ = cv2.findContours(binary, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
            if not contours:
                return 0.0
            first, *rest = sorted(contours, key=lambda c: cv2.contourArea(c), reverse=True)
            found = centre(first)
            total = 0.0
            for index, contour in enumerate(rest):
                if cv2.contourArea(contour) < 3:
                    continue
                total += cv2.contourArea(contour)
            if found is None:
                return 0.0
            x, y = found
            h, w = grey.shape[:2]
            return max(0.0, 1.0 - math.hypot(x - w / 2, y - h / 2) / (w ** 2 + h ** 2) ** 0.5)
    """,
    "vision": """
        from carl import vision

        def progress(frame, initial):
            things = vision.band(initial, 60) & ~vision.border_region(initial)
            found = vision.blobs(things, min_area=4)
            if not found:
                return 0.0
            blob = max(found, key=lambda b: b.area)
            return float(vision.changed(frame, initial)[blob.y : blob.y + blob.h, blob.x : blob.x + blob.w].mean())
    """,
    "functions and kinds of numbers in their places": """
        KIND = "float32"

        def area(contour):
            return cv2.contourArea(contour)

        def largest(contours):
            area = [len(contour) for contour in contours]
            return area[0] if area else max(contours, key=np.size)

        def progress(frame, initial):
            small = np.uint8 if frame.max() < 256 else np.uint16
            grey = np.asarray(frame, dtype=small).astype(float).mean(axis=2, dtype=KIND)
            like = np.zeros(grey.shape, grey.dtype) + np.zeros((1, 1), "uint8") + np.ones_like(grey, np.float32)
            scale = lambda x: x / 255
            out = np.zeros(grey.shape)
            np.divide(grey, like, out=out, where=like > 0)
            np.divide(grey, like, out, where=like > 0)
            mode = "edge"
            padded = np.pad(np.pad(np.pad(scale(out), 1), 1, "reflect"), ((1, 1), (1, 1)), mode=mode)
            contours, _ = cv2.findContours((grey > 9).astype("uint8"), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
            biggest = max(contours, key=area, default=None)
            ordered = sorted(enumerate(contours), key=lambda pair: cv2.contourArea(pair[1]))
            counts = {key: value for key, value in zip("ab", map(len, contours))}
            common = max(counts, key=counts.get) if counts else ""
            keys = counts.keys()
            a, b = map(float, [1, 2])
            seen = {1, 2} | set(range(3))
            seen.update(i for i in range(4))
            total = math.fsum(i * w for i, w in zip(*[[1, 2], [3, 4]])) + sum(1 for i in seen if i in map(abs, [1]))
            first, *rest = reversed([1, 2, 3])
            both = [*zip(rest, rest)] + list(filter(None, rest))
            whole = isinstance(total, (int, float))
            return min(1.0, abs(a - b) * np.add.reduce(padded, axis=0).sum() * 0)
    """,
    "constants and types as they are written": """
        from __future__ import annotations

        import numpy as np, cv2
        from typing import Dict, List, Optional, Tuple
        from numpy.typing import NDArray

        TILE = 8
        HALF = TILE // 2
        ROWS, COLS = 3, 4
        COLOURS: Dict[str, Tuple[int, int, int]] = {"red": (255, 0, 0), "green": (0, 255, 0)}
        LOW = np.array([40, 50, 50], dtype=np.uint8)
        CELLS = [(row, column) for row in range(ROWS) for column in range(COLS)]
        is_bright = lambda pixel: pixel.mean() > 128

        def centre(mask: NDArray[np.bool_], least: int = HALF, low=LOW) -> Optional[Tuple[float, float]]:
            rows, columns = np.nonzero(mask)
            box: List[int]
            if len(rows) < least:
                return None
            return float(rows.mean()), float(columns.mean())

        def progress(frame: "np.ndarray", initial: np.ndarray) -> float:
            red = np.all(frame == np.array(COLOURS["red"]), axis=-1)
            first = next((cell for cell in CELLS if is_bright(frame[cell])), None)
            if centre(red) is None or first is None:
                return 0.0
            score = np.polyval([0.5, 0.1], first[0] / TILE)
            score **= 2
            return float(np.clip(score, 0.0, 1.0))

        if __name__ == "__main__":
            print(progress(np.zeros((8, 8, 3)), np.zeros((8, 8, 3))))
    """,
    "no imports, other forms": """
        def progress(frame, initial):
            counts = {name: 0 for name in ("a", "b")}
            counts["a"] += 1
            values: list[float] = []
            values.append(np.linalg.norm([3, 4]) * (1 << 2))
            rows, cols = np.nonzero(np.maximum.reduce([frame[..., 0], frame[..., 1]]))
            seen = {(int(r), int(c)) for r, c in zip(rows, cols)}
            done = any(v > 3 for v in values) and not seen
            yy, xx = np.mgrid[0 : frame.shape[0], 0 : frame.shape[1]]
            pair = np.stack([*values, *values])
            ratio = np.divide(xx, yy, out=np.zeros(xx.shape), where=yy > 0) + np.sum(xx, where=yy > 0)
            same = np.add(xx, yy, np.zeros(xx.shape, dtype=np.int64), where=yy > 0)
            def inner(v):
                return v / math.sqrt(16)
            return float(done) if len(pair) == 2 else inner(1.0)
    """,
}


@pytest.mark.parametrize("source", BENIGN.values(), ids=BENIGN.keys())
def test_benign_source_passes(source):
    assert violations(inspect.cleandoc(source)) == []


@pytest.mark.parametrize("name", [name for name in vars(nano) if name.isupper() and not name.startswith("_")])
def test_programs_of_the_embedded_model_pass(name):
    assert violations(getattr(nano, name)) == []


def test_nothing_is_compiled_outside_the_box(monkeypatch):
    compiled, asked = compile, []

    def noted(source, filename, mode, flags=0, *args, **kwargs):
        asked.append(bool(flags & ast.PyCF_ONLY_AST))
        return compiled(source, filename, mode, flags, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr("builtins.compile", noted)
        found = [violations(inspect.cleandoc(source)) for source in (*HOSTILE.values(), *BENIGN.values())]
    assert found[-len(BENIGN) :] == [[]] * len(BENIGN)
    assert asked
    assert all(asked)


UNCOMPILABLE = {
    "break": body("break"),
    "continue": body("if frame.any():", "    continue"),
    "break behind the loop": body("for i in [1]:", "    pass", "else:", "    break"),
    "break in a function in a loop": body("for i in [1]:", "    def f():", "        break"),
    "return at the top": body() + "return 1\n",
    "the same parameter twice": "def f(a, a):\n    return 0\n" + body(),
    "the same parameter of a lambda": body("f = lambda a, a: 0"),
    "the same option twice": body("x = round(1, ndigits=1, ndigits=2)"),
    "a star alone": body("x = *frame"),
    "a star as a target": body("*x = frame"),
    "a starred loop": body("for *x in [frame]:", "    pass"),
    "a star that is returned": "def progress(frame, initial):\n    return *frame\n",
    "two stars": body("*x, *y = frame"),
    "a late star": body(", ".join(f"a{i}" for i in range(256)) + ", *b = frame"),
    "a walrus over a loop's variable": body("x = [i := 0 for i in [1]]"),
    "a walrus in what is looped over": body("x = [i for i in (y := [1])]"),
    "an asynchronous comprehension": body("x = [i async for i in frame]"),
    "many loops": body(*(" " * depth + f"for i{depth} in [1]:" for depth in range(21)), " " * 21 + "pass"),
    "nonlocal": body("nonlocal x"),
    "global after use": body("x = 1", "global x"),
}


@pytest.mark.parametrize("source", UNCOMPILABLE.values(), ids=UNCOMPILABLE.keys())
def test_what_parses_but_does_not_compile_is_refused_with_its_line(source):
    with pytest.raises(SyntaxError) as caught:
        compile(source, "", "exec")
    assert caught.value.lineno in {violation.line for violation in violations(source)}


def test_comments_and_strings_may_hold_any_letter():
    source = 'def progress(frame, initial):\n    """Öffnet die Tür."""\n    return 0.0  # größer → besser\n'
    assert not violations(source)


def test_every_violation_is_listed_with_its_line():
    source = "import os\n\ndef progress(frame, initial):\n    x = np.load('a')\n    return open('b')\n"
    lines = [str(violation) for violation in violations(source)]
    assert [line.split(":")[0] for line in lines] == ["line 1", "line 4", "line 5"]
    assert "np.load" in lines[1]


@pytest.mark.parametrize("name", INSTEAD_OF)
def test_what_models_write_that_is_not_there_is_refused_with_what_to_write(name):
    (found,) = violations(body(f"x = {name}(frame)"))
    assert found.message.endswith(INSTEAD_OF[name])
    assert name not in BUILTINS | {f"np.{function}" for function in NUMPY}


def test_program_error_names_the_sub_task():
    program = RewardProgram(
        subtasks=(SubTask(name="fine", code=body()), SubTask(name="open the door", source=body("open('a')")))
    )
    with pytest.raises(ProgramError, match=r"sub-task 2 \('open the door'\), line 3: `open`"):
        check_program(program)


def taking_a_type(owner, names):
    """Those that take a ``dtype`` by position, and at which one, as far as their signatures tell."""
    for name in names:
        with suppress(ValueError, AttributeError):  # no signature, or no array's method
            parameters = list(inspect.signature(attrgetter(name)(owner)).parameters.values())
            taken = [parameter.name for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY]
            if "dtype" in taken:
                yield name, taken.index("dtype")


def test_it_is_known_where_functions_take_a_kind_of_numbers():
    assert dict(taking_a_type(np, NUMPY_FUNCTIONS)).items() <= DTYPE_AT.items()
    methods = {name: place - 1 for name, place in taking_a_type(np.ndarray, METHODS - FIELDS)}
    assert methods.items() <= METHOD_DTYPE_AT.items()


@pytest.mark.parametrize(("module", "names"), [(np, NUMPY), (cv2, CV2), (math, MATH)])
def test_every_allowed_name_exists_and_is_no_module(module, names):
    for name in names:
        value = module
        for part in name.split("."):
            value = getattr(value, part)
        assert not inspect.ismodule(value), name


def test_allowed_builtins_reach_neither_code_nor_files():
    assert not BUILTINS & {
        "eval",
        "exec",
        "open",
        "getattr",
        "type",
        "vars",
        "object",
        "super",
        "print",
        "input",
        "str",
    }


def test_vision_offers_its_public_functions_only():
    assert {"band", "changed", "largest"} <= vision_functions()
    assert not {"cv2", "np", "Blob", "NDArray", "_bytes"} & vision_functions()
