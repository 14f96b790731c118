"""What the evidence for a program cannot exclude, in sentences."""

from collections.abc import Iterator, Mapping

from carl.runs.reader import Record, Run, as_record
from carl.runs.report import words
from carl.runs.report.gate import bounded, bounds
from carl.runs.words import number
from carl.statistics import trials_to_exclude

SAID: Mapping[str, str] = {
    "sound_evidence": "episodes that cannot judge it",
    "static_policy": "holds what is not allowed",
    "abstains": "gives no number",
    "deterministic": "gives another number the second time",
    "stable": "judged otherwise where the frame looks a little different",
    "cost": "too slow",
    "experts_complete": "never done by an expert",
    "already_done": "done from the start",
    "done_with_task": "done before the task is solved",
    "lasting": "undone again by moving on",
    "random_completion": "completed by random play with the task unsolved",
    "needed": "a sub-task that nothing needs",
}
"""What a program does wrong that fails a check, by the check's name."""

SOUND = "sound_evidence"
"""The check on the episodes themselves."""

ORNAMENTS = "needed"
"""The check on what each sub-task is good for."""

IN_PART = "for_nothing_"
"""Begins the names of checks on what is paid in part."""

OF_A_KIND: Mapping[str, str] = {
    "only_solved_": "completed without solving the task, in {} episodes",
    IN_PART: "paid for nothing, in {} episodes",
    "degrees_": "more progress for what is farther, in {} episodes",
}
"""The same for checks on one kind of episodes, by the beginning of the name."""


def said_of(check: str) -> str:
    """What is wrong with a program that fails a check, in words."""
    for prefix, said in OF_A_KIND.items():
        if check.startswith(prefix):
            return said.format(check.removeprefix(prefix))
    return SAID.get(check, check.replace("_", " "))


def doubts(run: Run, report: Record) -> list[str]:
    """What may be wrong all the same: shares up to their bounds, what was not judged, and what nobody showed."""
    if not report:
        return []
    figures = {str(one.get("name")): as_record(one.get("figures")) for one in report.get("checks") or []}
    of_checks = (*_open(figures), *_bounds(figures), *_in_part(figures), *_ornaments(figures), *_ends(figures))
    return [*of_checks, *_fewer(run, report), *_switched_off(figures), *_unjudged(report), *_unseen(run)]


def _bounds(by_name: Mapping[str, Record]) -> Iterator[str]:
    """A sentence for each check of shares of episodes, with their bounds, the loosest first."""
    told = {name: figures for name, figures in by_name.items() if not name.startswith((IN_PART, SOUND, ORNAMENTS))}
    found = [(max(most), name) for name, figures in told.items() if (most := bounds(name, figures))]
    for _, name in sorted(found, key=lambda one: one[0], reverse=True):
        said, often = said_of(name), bounded(name, told[name])
        yield f"{said[:1].upper()}{said[1:]}: in up to {often} of such episodes (95\u00a0% confidence)."


def _open(by_name: Mapping[str, Record]) -> Iterator[str]:
    """What the number of episodes leaves open."""
    figures = by_name.get(SOUND, {})
    excluded, experts = number(figures.get("excluded")), number(figures.get("experts"))
    if excluded is not None and experts:
        yield f"A fault in up to {words.percent(excluded)} of the seeds may not show in {words.count(experts)} experts."
    distinct = number(figures.get("distinct"))
    if distinct and experts and distinct < experts:
        some = "is distinct: the others repeat it" if distinct == 1 else "are distinct: the others repeat them"
        yield f"Of the {words.count(experts)} expert episodes only {words.count(distinct)} {some} frame by frame."
    bound, solved = number(figures.get("bound")), number(figures.get("comparable"))
    if bound is not None and solved:
        against = words.count((number(figures.get("contradicted")) or 0.0) * solved)
        compared = f"{against} of {words.count(solved)} that could be compared are contradicted by another"
        most = words.percent(bound)
        yield f"Success that no frame shows: in up to {most} of episodes ({compared}; 95\u00a0% confidence)."


def _in_part(by_name: Mapping[str, Record]) -> Iterator[str]:
    for name, figures in by_name.items():
        share = number(figures.get("share"))
        if name.startswith(IN_PART) and share:
            most = bounded(name, figures)
            often = f", anything in up to {most} of the episodes (95\u00a0% confidence)" if most else ""
            said = f"{said_of(name)[:1].upper()}{said_of(name)[1:]}"
            yield f"{said}: {words.percent(share)} of the return on average{often}."


def _ornaments(by_name: Mapping[str, Record]) -> Iterator[str]:
    figures = by_name.get(ORNAMENTS, {})
    most = bounds(ORNAMENTS, figures)
    for index in map(int, figures.get("ornaments") or ()):
        often = f", in up to {words.percent(most[index - 1])} of the episodes" if 0 < index <= len(most) else ""
        yield f"Sub-task {index} may be an ornament: next to nothing changes without it{often}."


def _ends(by_name: Mapping[str, Record]) -> Iterator[str]:
    """Sub-tasks with which episodes end, so that nothing shows whether they last."""
    followed = by_name.get("lasting", {}).get("followed")
    for index, count in enumerate(followed if isinstance(followed, list) else (), 1):
        if not number(count):
            yield f"Whether sub-task {index} stays done: no episode goes on after it."


def _switched_off(by_name: Mapping[str, Record]) -> Iterator[str]:
    """Rules whose limit refuses nothing, as a task or a run may set it."""
    for name, figures in by_name.items():
        if (number(figures.get("limit")) or 0.0) >= 1 and not name.startswith(IN_PART):
            yield f"Not judged: {said_of(name)}, since the settings allow it in every episode."


def _unjudged(report: Record) -> Iterator[str]:
    for rule, why in as_record(report.get("unjudged")).items():
        yield f"Not judged: {said_of(str(rule))}, since {why}."


def _fewer(run: Run, report: Record) -> Iterator[str]:
    """Which kinds of episodes are fewer than the run's own bound asks for."""
    excludes = number(as_record(run.config.get("collect")).get("excludes"))
    if excludes is None or not 0 < excludes < 1:
        return
    wanted = trials_to_exclude(excludes)
    counts = {kind: int(number(count) or 0) for kind, count in as_record(report.get("episodes")).items()}
    fewer = [f"{count} {kind}" for kind, count in counts.items() if count < wanted]
    if fewer:
        asked = f"{wanted} of each kind, which collect.excludes asks for to exclude {words.percent(excludes)}"
        yield f"Fewer episodes than {asked}: {', '.join(fewer)}."


def _unseen(run: Run) -> Iterator[str]:
    seed = run.config.get("seed", run.result.get("seed"))
    of = f" (seeds spawned from {seed})" if seed is not None else ""
    yield f"Frames unlike any in these episodes{of}: another camera, size, layout or way of playing was not shown."
