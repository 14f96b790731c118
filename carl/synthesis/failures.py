"""What speaks against a program, in the words that reward designers use, for the next request."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Self

from carl.verification.report import Check, FrameRef, VerificationReport

EARLY, UNEARNED, MISREAD, WEAK = "rewarded too early", "paid for nothing", "misread", "too weak to learn from"
SLOW = "too slow"

FAILURES = (EARLY, UNEARNED, MISREAD, WEAK, SLOW)
"""The words of failure that a rule's message may begin with."""

WORDS = {
    "already_done": EARLY,
    "done_with_task": EARLY,
    "lasting": EARLY,
    "only_solved": EARLY,
    "for_nothing": UNEARNED,
    "random_completion": UNEARNED,
    "abstains": MISREAD,
    "deterministic": MISREAD,
    "experts_complete": MISREAD,
    "stable": MISREAD,
    "degrees": MISREAD,
    "cost": SLOW,
}
"""How a program failed, by the beginning of the name of the rule that it failed. Another rule's own name says it."""

CASES = 3
"""Failing frames that are shown."""


@dataclass(frozen=True)
class Case:
    """One frame that decided, and how the program failed there."""

    frame: FrameRef
    words: str

    def __str__(self) -> str:
        about = "" if self.frame.subtask is None else f" (sub-task {self.frame.subtask + 1})"
        return f"{self.words}{about}: expected {self.frame.expected}; got {self.frame.got}"


@dataclass(frozen=True)
class Findings:
    """What was found against an answer: a text, and the frames that decided, the shortest case first."""

    text: str = ""
    cases: tuple[Case, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.text)

    def beside(self, text: str) -> "Findings":
        """These and a further text, which may be empty."""
        return Findings("\n".join(filter(None, [self.text, text])), self.cases)

    @classmethod
    def of(cls, report: VerificationReport) -> Self:
        """Every check that failed; of each the frame that comes first in its episode, then the second ones, ..."""
        failed = [(check, _in_order(check)) for check in report.failed]
        turns = zip_longest(*([Case(frame, _words(check)) for frame in frames] for check, frames in failed))
        cases = [case for case in chain.from_iterable(turns) if case is not None]
        return cls("\n".join(_told(check, frames) for check, frames in failed), tuple(cases[:CASES]))


NONE = Findings()
"""Nothing was found."""


def _in_order(check: Check) -> list[FrameRef]:
    return sorted(check.frames, key=lambda frame: frame.step)


def _words(check: Check) -> str:
    """The words that the message begins with, else those of the rule."""
    said = check.message.partition(":")[0].casefold()
    if said in FAILURES:
        return said
    named = (words for name, words in WORDS.items() if check.name.startswith(name))
    return next(named, check.name.replace("_", " "))


def _told(check: Check, frames: Sequence[FrameRef]) -> str:
    words = _words(check)
    message = check.message[len(words) + 1 :].strip() if check.message.casefold().startswith(words) else check.message
    return "\n".join([f"{words.capitalize()}: {message}", *_lines(frames)])


def _lines(frames: Iterable[FrameRef]) -> list[str]:
    return [f"- {frame}" for frame in frames]
