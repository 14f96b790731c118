"""Two programs side by side: their code as a unified diff, and the figures of the gate."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import unified_diff
from typing import NamedTuple

from carl.program import RewardProgram, SubTask
from carl.runs.report.gate import with_bound
from carl.verification import Check, VerificationReport

Pair = tuple[int | None, int | None]
"""Positions of one sub-task in both programs, from 0; None where a program lacks it."""


class Row(NamedTuple):
    """A check in both reports: its name, and its outcome and figures in each; empty where a report lacks it."""

    name: str
    left: str
    right: str

    @property
    def differs(self) -> bool:
        """Whether the reports say different things of it."""
        return self.left != self.right


def matched(left: RewardProgram, right: RewardProgram) -> list[Pair]:
    """Which sub-tasks belong together: those of one name, then by position what is left over."""
    free = list(range(len(right.subtasks)))
    partner: dict[int, int] = {}
    for position, one in enumerate(left.subtasks):
        same = next((other for other in free if right.subtasks[other].name == one.name), None)
        if same is not None:
            partner[position] = same
            free.remove(same)
    for position in range(len(left.subtasks)):
        if position not in partner and position in free:
            partner[position] = position
            free.remove(position)
    pairs: list[Pair] = [(position, partner.get(position)) for position in range(len(left.subtasks))]
    return pairs + [(None, other) for other in free]


def differences(left: RewardProgram, right: RewardProgram, names: tuple[str, str]) -> str:
    """A unified diff of all sub-tasks that differ, with what is not code as comments above; empty if none does."""
    parts = []
    for first, second in matched(left, right):
        old, new = _side(left, first), _side(right, second)
        labels = (_label(names[0], left, first), _label(names[1], right, second))
        parts.append("".join(unified_diff(old, new, *labels)))
    if left.ordered != right.ordered:
        words = {True: "in this order", False: "in any order"}
        parts.insert(0, f"-{words[left.ordered]}\n+{words[right.ordered]}\n")
    return "".join(parts)


def _side(program: RewardProgram, position: int | None) -> list[str]:
    return [] if position is None else _lines(program.subtasks[position], position)


def _lines(subtask: SubTask, position: int) -> list[str]:
    fields = subtask.model_dump(exclude={"code", "name", "description"})
    head = [f"# {position + 1}. {subtask.name}", *(f"# {line}" for line in subtask.description.splitlines())]
    head += [f"# {name}: {value}" for name, value in fields.items()]
    return [f"{line}\n" for line in [*head, *subtask.code.splitlines()]]


def _label(name: str, program: RewardProgram, position: int | None) -> str:
    return "/dev/null" if position is None else f"{name}, {position + 1}. {program.subtasks[position].name}"


def figures(left: VerificationReport | None, right: VerificationReport | None) -> list[Row]:
    """The checks of two reports side by side, in their order; none if there is no report."""
    sides = _by_check(left), _by_check(right)
    keys = list(dict.fromkeys(key for side in sides for key in side))
    return [Row(_named(key), *(_outcome(side.get(key)) for side in sides)) for key in keys]


Key = tuple[str, int | None]


def _by_check(report: VerificationReport | None) -> Mapping[Key, Check]:
    return {(check.name, check.subtask): check for check in (report.checks if report else ())}


def _named(key: Key) -> str:
    name, subtask = key
    return name.replace("_", " ") + ("" if subtask is None else f", sub-task {subtask + 1}")


def _outcome(check: Check | None) -> str:
    if check is None:
        return ""
    return f"{'passed' if check.passed else 'FAILED'}: {with_bound(check.name, check.figures, check.message)}"


def episodes(reports: Sequence[VerificationReport | None]) -> Iterator[str]:
    """For each report how many episodes of which kinds it judged, in words."""
    for report in reports:
        yield ", ".join(f"{count} {kind}" for kind, count in report.episodes.items()) if report else ""
