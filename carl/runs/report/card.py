"""The reward card: what a sceptical reviewer asks of a reward, at a glance."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from carl.program import RewardProgram
from carl.runs.reader import Record, Run, as_record
from carl.runs.report import words
from carl.runs.report.closest import Call, Traced, calls
from carl.runs.report.doubts import doubts, said_of
from carl.runs.report.evidence import Tracer
from carl.runs.report.tried import Refusal, Tried, cost, notes, refusals, tried
from carl.runs.words import by, number
from carl.statistics import exact_bound
from carl.verification.rule import Evidence

TRACED = 6
"""Episodes of each kind that are looked through for the hardest frames."""


class SubTaskRow(NamedTuple):
    """What is known of one sub-task: its name, its share of the return in percent, and figures by their heading."""

    name: str
    share: float
    figures: Mapping[str, str]


class Card(NamedTuple):
    """The reward card.

    Attributes:
        accepted: the verdict; None if there is none.
        verdict: it as a sentence.
        origin: which program it is, and where it came from, in a sentence.
        rows: of the sub-tasks; ``headings`` are those of their figures.
        calls: the hardest frames that were judged right.
        refusals: the frames that decided against programs.
        tried: why programs were rejected, the commonest reason first; ``notes`` are the search's own sentences.
        cost: what it took, as (what, value).
        doubts: what the evidence cannot exclude, a sentence each.
        approvals: who approved the program, a sentence each; that nobody did, where the run asks for it.
    """

    accepted: bool | None
    verdict: str
    origin: str
    headings: Sequence[str]
    rows: Sequence[SubTaskRow]
    calls: Sequence[Call]
    refusals: Sequence[Refusal]
    tried: Sequence[Tried]
    notes: Sequence[str]
    cost: Sequence[tuple[str, str]]
    doubts: Sequence[str]
    approvals: Sequence[str]


def card(run: Run, tracer: Tracer) -> Card:
    """The card of the program that the run has, or had tried."""
    program, report = run.program, run.verification
    if program is not None and report.get("program_id", program.id) != program.id:
        report = {}
    rows = _rows(program, report) if program else []
    return Card(
        accepted=report.get("accepted") if isinstance(report.get("accepted"), bool) else None,
        verdict=_verdict(report),
        origin=_origin(program),
        headings=list(dict.fromkeys(heading for row in rows for heading in row.figures)),
        rows=rows,
        calls=calls(program, _traced(run, program, tracer)) if program else [],
        refusals=refusals(run),
        tried=tried(run),
        notes=notes(run),
        cost=cost(run, report),
        doubts=doubts(run, report),
        approvals=list(_approvals(program)) or _unapproved(run),
    )


def _verdict(report: Record) -> str:
    checks = report.get("checks") or []
    seen = episodes(report)
    where = f" on {seen} that the search had not seen" if seen else " on episodes that the search had not seen"
    if report.get("accepted") is True:
        return f"Accepted: it passed all {len({one.get('name') for one in checks})} checks{where}."
    if report.get("accepted") is False:
        failed = [said_of(str(one.get("name"))) for one in checks if not one.get("passed")]
        return f"Refused{where}: {', '.join(dict.fromkeys(failed))}."
    return "No verdict: no program was judged on episodes that the search had not seen."


def episodes(report: Record) -> str:
    """How many episodes of which kinds a report judged, in words; empty if it does not say."""
    former = {"expert": report.get("experts"), "random": report.get("randoms")}
    counted = as_record(report.get("episodes")) or {kind: count for kind, count in former.items() if count}
    parts = [f"{words.count(count)} {kind}" for kind, count in counted.items() if number(count)]
    return f"{', '.join(parts)} episodes" if parts else ""


def _rows(program: RewardProgram, report: Record) -> list[SubTaskRow]:
    by_name = {str(one.get("name")): as_record(one.get("figures")) for one in report.get("checks") or []}
    return [
        SubTaskRow(one.name, round(100 * one.weight / program.max_return, 1), dict(_figures(by_name, index)))
        for index, one in enumerate(program.subtasks)
    ]


def _figures(by_name: Mapping[str, Record], index: int) -> Iterator[tuple[str, str]]:
    """What the checks say of one sub-task, by heading."""
    experts = by_name.get("experts_complete", {})
    done, of = number(experts.get("completed")), number(experts.get("episodes"))
    if done is not None and of:
        yield "done by experts", _at_least(int(done), int(of))
    counts, of = as_list(by_name.get("random_completion", {}), "done_per_subtask"), _episodes_of(by_name)
    if index < len(counts) and of:
        yield "done in random play", _at_most(int(counts[index]), of)
    for name, figures in by_name.items():
        kind = name.removeprefix("for_nothing_")
        shares = as_list(figures, "shares")
        if kind != name and index < len(shares):
            yield f"paid for nothing, {kind}", words.percent(shares[index])


def _episodes_of(by_name: Mapping[str, Record]) -> int:
    return int(number(by_name.get("random_completion", {}).get("episodes")) or 0)


def as_list(figures: Record, key: str) -> Sequence[float]:
    """The numbers in a figure that is a list of them; else none."""
    value = figures.get(key)
    return [float(one) for one in value] if isinstance(value, list) else []


def _at_least(done: int, of: int) -> str:
    return f"{done} of {of} (at least {words.percent(1 - exact_bound(of - min(done, of), of))})"


def _at_most(done: int, of: int) -> str:
    return f"{done} of {of} (at most {words.percent(exact_bound(min(done, of), of))})"


def _traced(run: Run, program: RewardProgram, tracer: Tracer) -> list[Traced]:
    """Some episodes of each kind that the verdict is about, with what ``program`` showed in them."""
    found: list[Traced] = []
    for kind in Evidence:
        for trajectory in run.several(run.judged_on(kind), TRACED):
            progress = tracer(program, trajectory)
            if progress is None:
                return found
            found.append((trajectory, progress))
    return found


def _origin(program: RewardProgram | None) -> str:
    known = program.provenance if program else None
    if program is None or known is None:
        return ""
    asked = f"{known.model}, prompts {', '.join(known.prompts)}" if known.prompts else known.model
    parts = [known.origin and by(known.origin), asked, known.parent and f"edited from {known.parent}"]
    parts += [f"verdict {known.verdict.digest}"] if known.verdict else []
    return f"Program {program.id}: {'; '.join(filter(None, parts))}."


def _unapproved(run: Run) -> list[str]:
    asked = run.program is not None and as_record(run.config.get("verify")).get("require_approval") is True
    return ["Nobody has approved it yet: without that, this run does not train on it."] if asked else []


def _approvals(program: RewardProgram | None) -> Iterator[str]:
    for one in program.provenance.approvals if program and program.provenance else ():
        void = "" if program and one.program == program.id else f" That was another program, {one.program}."
        known = program.provenance.verdict if program and program.provenance else None
        other = known is not None and known.digest != one.verdict
        void = void or (f" That was on another verdict, {one.verdict}." if other else "")
        yield f"Approved by {one.by} at {one.at}.{f' {one.note}' if one.note else ''}{void}"
