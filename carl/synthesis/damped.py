"""Programs that pay too much for coming near, with less of the same."""

import re
from itertools import chain, count

from carl.program import DONE, RewardProgram, SubTask
from carl.synthesis.tried import Candidate
from carl.verification.report import Check

ROOM = 0.8
"""Of what may be paid so much is aimed at: other episodes of random play earn a little more."""

FUNCTION = re.compile(r"^def progress\(", re.MULTILINE)

LESS = """

def progress(frame, initial):
    shown = {name}(frame, initial)
    # done or not is as it was; random play comes near by chance
    return shown if shown >= {done} else {factor} * shown
"""


def damped(candidate: Candidate) -> RewardProgram | None:
    """The program with as much less partial progress as its failed checks ask for; None if it fails another one."""
    failed = candidate.verdict.failed
    if not failed or not all(check.name.startswith("for_nothing_") for check in failed):
        return None
    factor = ROOM * min(_within(check) for check in failed)
    shares = [max(each) for each in zip(*(_shares(check) for check in failed), strict=True)]
    subtasks = [
        _less(subtask, factor) if share > 0 else subtask
        for subtask, share in zip(candidate.program.subtasks, shares, strict=True)
    ]
    return candidate.program.model_copy(update={"subtasks": tuple(subtasks)})


def _within(check: Check) -> float:
    """How many times as much partial progress the check would pass; at most 1."""
    share, limit, each = (float(str(check.figures[name])) for name in ("share", "limit", "limit_each"))
    return min(limit / max(share, 1e-9), each / max(*_shares(check), 1e-9), 1.0)


def _shares(check: Check) -> list[float]:
    """What each sub-task pays of its weight for nothing."""
    shares = check.figures["shares"]
    return shares if isinstance(shares, list) else []


def _less(subtask: SubTask, factor: float) -> SubTask:
    """A sub-task with partial progress times ``factor``, in a function of its own beside what was written."""
    names = chain(["nearness"], (f"nearness_{number}" for number in count(2)))
    name = next(name for name in names if not re.search(rf"\b{name}\b", subtask.code))
    less = LESS.format(name=name, done=DONE, factor=f"{factor:.2g}")
    code = FUNCTION.sub(f"def {name}(", subtask.code).rstrip() + less
    return subtask.model_copy(update={"code": code})
