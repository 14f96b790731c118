"""The static policy refuses every known way out, and lets through what models really write."""

import inspect
import math

import cv2
import numpy as np
import pytest

from carl.errors import ProgramError
from carl.nano import programs as nano
from carl.program import RewardProgram, SubTask
from carl.sandbox.names import BUILTINS, CV2, MATH, NUMPY, vision_functions
from carl.sandbox.policy import check_program, check_source, violations


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
    "helper's list default": "def f(seen=[]):\n    return 0\n" + body(),
    "lambda's list default": body("f = lambda x=[]: x"),
    "decorator": "@len\n" + body().lstrip(),
    "global": body("global x", "x = 1"),
    "nonlocal": body("def f():", "    nonlocal x", "x = 1"),
    "top-level list": body("SEEN.append(1)", top="SEEN = []"),
    "top-level array": body(top="LOW = np.array([1, 2])"),
    "top-level dict in a tuple": body(top="STATE = ({}, 1)"),
    "top-level call": body(top="X = max(1, 2)"),
    "top-level unpacking": body(top="A, B = 1, 2"),
    "function attribute": body("progress.count = 1"),
    "attribute by loop": body("for progress.x in [1]:", "    pass"),
    "attribute of a module": body("np.pi = 3"),
    "del": body("del frame"),
    # memory as it was left
    "np.empty": body("x = np.empty(9)"),
    "np.empty_like": body("x = np.empty_like(frame)"),
    "where without out": body("x = np.sqrt(frame, where=frame > 3)"),
    "where, its keywords hidden": body("x = np.divide(frame, 3, where=frame > 3, dtype=np.float32)"),
    "padding with anything": body("x = np.pad(frame, 3, mode='empty')"),
    "padding with anything, in order": body("x = np.pad(frame, 3, 'empty')"),
    # the clock
    "now": body("np.array('now', dtype='datetime64[s]')"),
    "today": body("frame.astype('<M8[D]')"),
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
    "annotation": "def progress(frame: np.load('a'), initial):\n    return 0.0\n",
    "foreign annotation": "def progress(frame: os.PathLike, initial):\n    return 0.0\n",
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_source_is_refused(source):
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


def test_comments_and_strings_may_hold_any_letter():
    check_source('def progress(frame, initial):\n    """Öffnet die Tür."""\n    return 0.0  # größer → besser\n')


def test_every_violation_is_listed_with_its_line():
    source = "import os\n\ndef progress(frame, initial):\n    x = np.load('a')\n    return open('b')\n"
    with pytest.raises(ProgramError) as caught:
        check_source(source)
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["line 1", "line 4", "line 5"]
    assert "np.load" in lines[1]


def test_program_error_names_the_sub_task():
    program = RewardProgram(
        subtasks=(SubTask(name="fine", source=body()), SubTask(name="open the door", source=body("open('a')")))
    )
    with pytest.raises(ProgramError, match=r"sub-task 2 \('open the door'\), line 3: `open`"):
        check_program(program)


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
