"""The process that runs a program. Started by ``carl.sandbox.box`` as a script in a clean, isolated interpreter.

It reads requests from standard input, looks at frames in shared memory, and leaves values and reasons there. At the
top it imports the standard library alone: where numpy, cv2 and carl lie, it is told on its command line. The box
imports this module too, for the layout of the shared memory.
"""

import ctypes
import json
import math
import mmap
import os
import reprlib
import resource
import select
import signal
import struct
import sys
import warnings
from collections.abc import Callable
from types import CodeType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_ROWS = 256
"""Frames in one request."""

REASON_BYTES = 240
TOLERANCE = 1e-6
"""A value this little outside [0, 1] is rounding, and is clipped; ``carl.program.DONE`` allows for as much."""

REQUEST = struct.Struct("<3q")
"""Rows, height, width."""

CURSOR, TASKS, VALUES, REASONS = 0, 64, 64 + 8 * MAX_ROWS, 64 + 16 * MAX_ROWS
CONTROL_BYTES = -(-(REASONS + REASON_BYTES * MAX_ROWS) // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
"""The control block comes first: which row is being judged, then a sub-task, a value and a reason for each row.
The frames follow, ``uint8[2, rows, H, W, 3]``: now, and at the start."""

FRAMES_BYTES = 64 << 20
"""Room for frames. It takes memory only where it is written to."""

REQUESTS, REPLIES = 0, 1
READY, FINISHED = b"r", b"f"
ORPHAN_CHECK_S = 10.0

Function = Callable[["NDArray[np.uint8]", "NDArray[np.uint8]"], object]


class Control:
    """The control block of the shared memory, as arrays: ``int64[1]``, ``int64[R]``, ``float64[R]``, ``bytes[R]``."""

    def __init__(self, buffer: mmap.mmap) -> None:
        import numpy as np

        self.cursor = np.ndarray((1,), np.int64, buffer, CURSOR)
        self.tasks = np.ndarray((MAX_ROWS,), np.int64, buffer, TASKS)
        self.values = np.ndarray((MAX_ROWS,), np.float64, buffer, VALUES)
        self.reasons = np.ndarray((MAX_ROWS,), f"S{REASON_BYTES}", buffer, REASONS)


class SubTaskCode:
    """One sub-task's source. It is compiled at its first frame, so that the frame's deadline covers that too."""

    def __init__(self, index: int, source: str, names: dict[str, Any]) -> None:
        self._file = f"<sub-task {index}>"
        self._source = source
        self._names = names
        self._function: Function | None = None

    def judge(self, frame: "NDArray[np.uint8]", initial: "NDArray[np.uint8]") -> tuple[float, str]:
        """Progress in [0, 1] and "", or NaN and the reason why there is none."""
        try:
            if self._function is None:
                self._function = self._compiled()
            result = self._function(frame, initial)
        except Exception as error:  # whatever generated code raises is an abstain, told to whoever mends it
            return math.nan, self._told(error)
        return checked(result)

    def _compiled(self) -> Function:
        names = dict(self._names)
        code: CodeType = compile(self._source, self._file, "exec", dont_inherit=True)
        exec(code, names)
        function: Function = names["progress"]
        return function

    def _told(self, error: Exception) -> str:
        text = " ".join(str(error).split())[: REASON_BYTES - 80]
        return f"raised {type(error).__name__}{': ' if text else ''}{text}{self._line(error.__traceback__)}"

    def _line(self, trace: TracebackType | None) -> str:
        line = 0
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == self._file:
                line = trace.tb_lineno
            trace = trace.tb_next
        return f" (line {line})" if line else ""


def checked(result: object) -> tuple[float, str]:
    """What a program returned, as a float in [0, 1] and "", or as NaN and what is wrong with it."""
    import numpy as np

    if not isinstance(result, bool | int | float | np.bool_ | np.integer | np.floating):
        return math.nan, f"returned {_shown(result)}, not a number in [0, 1]"
    if result != result:
        return math.nan, "returned NaN, not a number in [0, 1]"
    if not -TOLERANCE <= result <= 1 + TOLERANCE:
        return math.nan, f"returned {_shown(result)}, outside [0, 1]"
    return min(max(float(result), 0.0), 1.0), ""


def _shown(result: object) -> str:
    import numpy as np

    if isinstance(result, np.ndarray):
        return f"an array of shape {list(result.shape)}"
    value = result.item() if isinstance(result, np.generic) else result
    kind = f"a value of type {type(result).__name__}"
    try:
        text = reprlib.repr(value)
    except Exception:  # the value is generated code's own, and may not be printable (an int of 5,000 digits, say)
        return kind
    return text if value is None or isinstance(value, str | float | int) else f"{kind}, {text}"


def namespace() -> dict[str, Any]:
    """What a program finds: the four modules, and the built-in functions that the policy lists."""
    import builtins
    import math

    import cv2
    import numpy as np

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
    return {
        "__builtins__": allowed | {"__import__": import_listed},
        "__name__": "program",
        "np": np,
        "cv2": cv2,
        "math": math,
        "vision": vision,
    }


def warm_up() -> None:
    """Import and use now what numpy and cv2 would import at first use, when nothing can be opened any more."""
    import cv2
    import numpy as np
    import numpy.fft
    import numpy.linalg
    import numpy.ma
    import numpy.random

    cv2.setNumThreads(1)
    cv2.ocl.setUseOpenCL(False)
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    sample = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    for reduce in (
        "sum",
        "mean",
        "std",
        "var",
        "min",
        "max",
        "any",
        "all",
        "prod",
        "argmax",
        "argmin",
        "clip",
        "round",
    ):
        getattr(sample, reduce)(*((0, 1) if reduce == "clip" else ()))
    for function in (np.median, np.unique, np.argsort, np.diff, np.histogram, np.linalg.norm):
        function(sample.astype(np.float64)[..., 0])
    np.percentile(sample, 50)
    np.isin(sample, [1])
    cv2.cvtColor(sample, cv2.COLOR_RGB2HSV)


def lock_down(memory_mb: int) -> None:
    """No new privileges, files, processes or core dumps; ``memory_mb`` MiB of address space more than it has now."""
    ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[0])
    address_space = pages * resource.getpagesize() + (memory_mb << 20)
    limits = {
        resource.RLIMIT_AS: address_space,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_NOFILE: 0,
    }
    for limit, value in limits.items():
        _, hard = resource.getrlimit(limit)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))


def receive(requests: int, size: int, parent: int) -> bytes:
    """The next ``size`` bytes; b"" once the parent is gone, whoever else may hold its end of the pipe."""
    while not select.select([requests], [], [], ORPHAN_CHECK_S)[0]:
        if os.getppid() != parent:
            return b""
    return os.read(requests, size)


def serve(control: Control, frames_map: mmap.mmap, codes: list[SubTaskCode], deadline_s: float) -> None:
    """Answer requests until the parent hangs up. The kernel ends this process if one frame takes too long."""
    import numpy as np

    parent = os.getppid()
    os.write(REPLIES, READY)
    while request := receive(REQUESTS, REQUEST.size, parent):
        rows, height, width = REQUEST.unpack(request)
        frames = np.ndarray((2, rows, height, width, 3), np.uint8, frames_map)
        for row, task in enumerate(control.tasks[:rows].tolist()):
            control.cursor[0] = row
            signal.setitimer(signal.ITIMER_REAL, deadline_s)
            value, reason = codes[task].judge(frames[0, row], frames[1, row])
            control.values[row] = value
            if reason:
                control.reasons[row] = reason.encode("ascii", "replace")
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.write(REPLIES, FINISHED)


def main() -> None:
    """Arguments: the descriptor of the shared memory, then the folders to import from.

    The first line of standard input is JSON: the sources, the deadline in seconds and the memory in MiB.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    memory = int(sys.argv[1])
    sys.path.extend(sys.argv[2:])
    settings = json.loads(sys.stdin.buffer.readline())  # nothing follows this line before READY is sent
    warm_up()
    names = namespace()
    codes = [SubTaskCode(index, source, names) for index, source in enumerate(settings["sources"], 1)]
    control = Control(mmap.mmap(memory, CONTROL_BYTES))
    frames = mmap.mmap(memory, FRAMES_BYTES, prot=mmap.PROT_READ, offset=CONTROL_BYTES)
    lock_down(settings["memory_mb"])
    serve(control, frames, codes, settings["deadline_s"])


if __name__ == "__main__":
    main()
