"""Random programs: what the static policy allows, put together without sense, and hostile programs with changes."""

import re
import textwrap

import cv2
from hypothesis import strategies as st

from carl.sandbox.names import BUILTINS, CV2, MATH, METHODS, NUMPY, ufuncs, vision_functions
from tests.sandbox.hostile import ATTACKS
from tests.sandbox.test_names import PROGRAM, USES
from tests.sandbox.test_policy import HOSTILE

PICTURES = ("frame", "initial", "grey", "other", "real", "mask", "binary", "square", "corners")
ROWS = ("numbers", "whole", "frame[0, :, 0]", "[1, 2, 3, 4]", "(3, 3)")
NUMBERS = ("0", "1", "2", "3", "-1", "7", "0.5", "255", "h", "w", "1e9", "True", "None", "np.nan", "'red'", "'empty'")
OPERATORS = ("+", "-", "*", "/", "//", "%", "&", "|", "^", "==", "<", ">=", "and", "or", "if grey.any() else")
SUBSCRIPTS = ("[0]", "[-1]", "[1:5]", "[..., 0]", "[::-1]", "[mask]", "[whole]", "[:, None]", "[0, 0]", "[7]")
KEYWORDS = (
    "axis=0",
    "axis=1",
    "dtype=np.uint8",
    "where=mask",
    "keepdims=True",
    "mask=binary",
    "mode='empty'",
    "out=real",
    "out=None",
    "initial=None",
    "borderType=5",
    "key=np.size",
)
UFUNCS = sorted(f"np.{name}" for name in ufuncs())
CALLED = sorted(
    [
        *(f"np.{name}" for name in NUMPY),
        *(f"cv2.{name}" for name in CV2 if callable(getattr(cv2, name))),
        *(f"math.{name}" for name in MATH),
        *(f"vision.{name}" for name in vision_functions()),
        *BUILTINS,
    ]
)

atoms = st.one_of(*(st.sampled_from(kind) for kind in (PICTURES, ROWS, NUMBERS, sorted(USES.values()))))


PLANES = ("grey", "other", "real", "mask", "binary")


def _filled(use: str, inner: str) -> str:
    """A call that makes sense, of something else: ``np.sqrt(real)`` becomes ``np.sqrt(inner)``."""
    return re.sub(r"\b(grey|real|mask|binary|frame|numbers)\b", f"({inner})", use, count=1)


def _sensible(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds(_filled, st.sampled_from(sorted(USES.values())), inner),
        st.builds("({} {} {})".format, inner, st.sampled_from(OPERATORS[:5]), st.sampled_from(PLANES)),
        st.builds("np.where(mask, {}, {})".format, inner, st.sampled_from(PLANES)),
        st.builds("[{} for x in range(3)]".format, inner),
    )


def _wild(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    arguments = st.lists(st.one_of(inner, st.sampled_from(KEYWORDS)), min_size=1, max_size=4)
    ordered = arguments.map(lambda found: ", ".join(sorted(dict.fromkeys(found), key=lambda text: text in KEYWORDS)))
    return st.one_of(
        st.builds("{}({})".format, st.sampled_from(CALLED), ordered),
        st.builds("({}).{}({})".format, inner, st.sampled_from(sorted(METHODS)), st.one_of(st.just(""), ordered)),
        st.builds("({} {} {})".format, inner, st.sampled_from(OPERATORS), inner),
        st.builds("({}){}".format, inner, st.sampled_from(SUBSCRIPTS)),
        st.builds("max({}, key=lambda x: {})".format, inner, inner),
        st.builds("{{{}, {}}}".format, inner, inner),
        st.builds("{}({}, out={}, where=mask)".format, st.sampled_from(UFUNCS), inner, inner),
        st.builds("('%s' % {})".format, inner),
        st.builds("[*{}]".format, inner),
    )


sensible = st.recursive(st.sampled_from(PLANES), _sensible, max_leaves=4)
wild = st.recursive(atoms, _wild, max_leaves=5)
expressions = st.one_of(sensible, sensible, st.builds("helper({}, {})".format, sensible, sensible), wild)

statements = st.one_of(
    st.builds("{} = {}".format, st.sampled_from(["x", "y", "z"]), expressions),
    st.builds("x, *y = {}".format, expressions),
    st.builds("for x in {}:\n    y = {}\n    if y is None: break".format, expressions, expressions),
    st.builds("if np.any({}):\n    x = {}\nelse:\n    return digest({})".format, *[expressions] * 3),
    st.builds("{}[0] = {}".format, st.sampled_from(PICTURES), expressions),
    st.builds("{} = {}".format, st.sampled_from(PICTURES), expressions),
    st.builds("real += {}".format, expressions),
)


@st.composite
def programs(draw: st.DrawFn) -> str:
    """The source of a sub-task whose every part is allowed; what it does is left to chance."""
    head, _, last = PROGRAM.rpartition("    return digest(RESULT)")
    body = "\n".join(draw(st.lists(statements, max_size=3)))
    names = "frame = initial = grey = other = real = mask = binary = square = corners = numbers = whole = h = w = a"
    helper = f"def helper(a, b=1):\n    {names}\n    return {draw(sensible)}\n"
    end = f"    return digest({draw(expressions)})"
    return f"{helper}{head}    x = y = z = 1\n{textwrap.indent(body, '    ')}\n{end}{last}"


HOSTILE_SOURCES = [
    *HOSTILE.values(),
    *(f"def progress(frame, initial):\n{textwrap.indent(textwrap.dedent(attack.body), '    ')}" for attack in ATTACKS),
]
KEPT = {"def", "progress", "frame", "initial", "return", "for", "in", "if", "else", "and", "not", "lambda", "x", "f"}


@st.composite
def changed(draw: st.DrawFn) -> str:
    """A hostile source, most of whose words are replaced by such as are allowed."""
    random = draw(st.randoms(use_true_random=False))
    parts = re.split(r"([A-Za-z_](?:\w|\.)*)", draw(st.sampled_from(HOSTILE_SOURCES)))
    for place in range(1, len(parts), 2):
        if parts[place] not in KEPT and random.random() < 0.85:
            parts[place] = random.choice(random.choice((CALLED, PICTURES, PICTURES)))
    return "".join(parts)
