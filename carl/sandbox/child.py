"""The code of a box's child after its lockdown: it loads a program and judges frames."""

import json
import math
import os
import reprlib
import warnings
from collections.abc import Callable
from types import CodeType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carl.sandbox import ordered
from carl.sandbox.ordered import FrozenOrderedSet, OrderedSet, rewritten
from carl.sandbox.shared import FINISHED, JUDGE, PASSING, READY, REASON_BYTES, REQUEST, Shared
from carl.sandbox.source import parsed

TOLERANCE = 1e-6
"""A value this little outside [0, 1] is rounding, and is clipped; ``carl.program.DONE`` allows for as much."""

Function = Callable[[NDArray[np.uint8], NDArray[np.uint8]], object]


class SubTaskCode:
    """One sub-task's code. It is compiled at its first frame, so that the frame's limits hold for the compiler too."""

    def __init__(self, index: int, source: str, names: dict[str, Any]) -> None:
        self._file = f"<sub-task {index}>"
        self._source = source
        self._names = names
        self._code: CodeType | None = None

    def judge(self, frame: NDArray[np.uint8], initial: NDArray[np.uint8]) -> tuple[float, str]:
        """Progress in [0, 1] and "", or NaN and the reason of the abstain."""
        try:
            return checked(self.function()(frame, initial))
        except BaseException as error:  # whatever generated code raises is an abstain, and its reason
            return math.nan, self._reason(error)

    def function(self) -> Function:
        """A new ``progress`` with new constants and helpers, so that a call finds nothing that another one stored."""
        if self._code is None:
            self._code = compile(rewritten(parsed(self._source)), self._file, "exec", dont_inherit=True)
        names = dict(self._names)
        exec(self._code, names)
        function: Function = names["progress"]
        return function

    def _reason(self, error: BaseException) -> str:
        kind = type(error).__name__[:40]
        try:
            text = " ".join(str(error).split())[: REASON_BYTES - 80]
        except BaseException:  # an error's words can be generated code's own
            text = ""
        return f"raised {kind}{': ' if text else ''}{text}{self._line(error.__traceback__)}"

    def _line(self, trace: TracebackType | None) -> str:
        line = 0
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == self._file:
                line = trace.tb_lineno
            trace = trace.tb_next
        return f" (line {line})" if line else ""


def checked(result: object) -> tuple[float, str]:
    """What a program returned, as a float in [0, 1] and "", or as NaN and what is wrong with it."""
    if not isinstance(result, bool | int | float | np.bool_ | np.integer | np.floating):
        return math.nan, f"returned {_shown(result)}, not a number in [0, 1]"
    if result != result:
        return math.nan, "returned NaN, not a number in [0, 1]"
    if not -TOLERANCE <= result <= 1 + TOLERANCE:
        return math.nan, f"returned {_shown(result)}, outside [0, 1]"
    return min(max(float(result), 0.0), 1.0), ""


def _shown(result: object) -> str:
    if isinstance(result, np.ndarray):
        return f"an array of shape {list(result.shape)}"
    value = result.item() if isinstance(result, np.generic) else result
    kind = f"a value of type {type(result).__name__}"
    try:
        text = reprlib.repr(value)
    except Exception:  # the value is generated code's own, and may not be printable (as an int of 5,000 digits)
        return kind
    return text if value is None or isinstance(value, str | float | int) else f"{kind}, {text}"


def namespace() -> dict[str, Any]:
    """A program's globals: the four modules, and the built-in functions that the policy lists."""
    import builtins

    import cv2

    from carl import vision
    from carl.sandbox.names import BUILTINS

    modules = {"numpy": np, "cv2": cv2, "math": math}

    def import_listed(
        name: str, _globals: object = None, _locals: object = None, fromlist: object = None, level: int = 0
    ) -> Any:
        if isinstance(fromlist, list):  # C code of numpy or cv2 asks so; it takes the module from sys.modules
            __import__(name)
            return None
        if name == "carl" and fromlist == ("vision",) and level == 0:
            import carl

            return carl
        if name in modules and not fromlist and level == 0:
            return modules[name]
        raise ImportError(f"a program may not import {name}")

    allowed = {name: getattr(builtins, name) for name in BUILTINS}
    allowed |= {"set": OrderedSet, "frozenset": FrozenOrderedSet, ordered.NAME: OrderedSet}
    return {
        "__builtins__": allowed | {"__import__": import_listed},
        "__name__": "program",
        "np": np,
        "cv2": cv2,
        "math": math,
        "vision": vision,
    }


def warm_up() -> None:
    """Import and call in advance what imports modules at its first use, since the child cannot open files later."""
    import cv2
    import numpy.fft
    import numpy.linalg
    import numpy.ma
    import numpy.random  # noqa: F401

    cv2.setNumThreads(1)
    cv2.ocl.setUseOpenCL(False)
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    sample = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    for reduce in ["sum", "mean", "std", "var", "min", "max", "any", "all", "prod", "argmax", "argmin", "round"]:
        getattr(sample, reduce)()
    sample.clip(0, 1)
    for function in (np.median, np.unique, np.argsort, np.diff, np.histogram, np.linalg.norm):
        function(sample.astype(np.float64)[..., 0])
    np.percentile(sample, 50)
    np.isin(sample, [1])
    cv2.cvtColor(sample, cv2.COLOR_RGB2HSV)
    namespace()


def serve(channel: int, shared: Shared) -> None:
    """Answer requests until the caller closes the channel, or ends this process because a frame takes too long."""
    names = namespace()
    codes: list[SubTaskCode] = []
    os.write(channel, READY)
    while request := os.read(channel, REQUEST.size):
        kind, *numbers = REQUEST.unpack(request)
        if kind == JUDGE:
            judge(codes, shared, *numbers)
            os.write(channel, FINISHED)
        else:
            sources = json.loads(shared.frames[PASSING : PASSING + numbers[0]])
            codes = [SubTaskCode(index, source, names) for index, source in enumerate(sources, 1)]
            os.write(channel, READY)


def judge(
    codes: list[SubTaskCode],
    shared: Shared,
    rows: int,
    height: int,
    width: int,
    *where: int,
) -> None:
    """Write a value, or NaN and a reason, for each row. ``where`` is start and count of frames and initial frames."""
    frames, initials = (
        np.ndarray((count, height, width, 3), np.uint8, shared.frames, start) for start, count in (where[:2], where[2:])
    )
    cursor, values, places = shared.cursor, shared.values, shared.places[:, :rows].tolist()
    for row, (task, now, then) in enumerate(zip(shared.tasks[:rows].tolist(), *places, strict=True)):
        cursor[0] = row
        values[row], reason = codes[task].judge(frames[now], initials[then])
        if reason:
            shared.reasons[row] = reason.encode("ascii", "replace")
