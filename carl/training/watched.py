"""What the watch over a training saw, summed up from its records, and in sentences."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from carl.artefacts import records, whole

Record = Mapping[str, Any]

MAX_REPAIRS = 3
"""Searches for another program in one training."""


def looks(path: Path) -> list[dict[str, Any]]:
    """The records in the file at ``path``; none without one. Raises ConfigError for a damaged one."""
    with whole(str(path)):
        text = path.read_text() if path.exists() else ""
    return records(text, str(path), lambda one: int(one["iterations"]))


def summed(looks: Sequence[Record]) -> dict[str, Any]:
    """The sum of the records in WATCH; empty without any.

    ``raised``: for each alarm of a rule its ``rule`` and ``message``, and the ``env_steps`` and the ``share`` of the
    budget after which it was raised; ``standing``: the messages of those that stood last; ``weight``: the program's in
    the end; ``program``: its id; ``replaced``: ids of programs that were replaced; ``repairs``: the last record of each
    search for another program; ``films`` and ``seconds``: how often the policy was filmed, and what that and its
    judging took.
    """
    if not looks:
        return {}
    last = looks[-1]
    programs = dict.fromkeys(str(one["program"]) for one in looks)
    found = [one["repair"]["program"] for one in looks if (one.get("repair") or {}).get("program")]
    programs |= dict.fromkeys(found)
    now = next(reversed(programs))
    return {
        "raised": list(_raised(looks)),
        "standing": [alarm["message"] for alarm in last["alarms"]],
        "weight": last["weight"] if last.get("lowered") is None else last["lowered"],
        "program": now,
        "replaced": [program for program in programs if program != now],
        "repairs": list({one["repair"]["number"]: one["repair"] for one in looks if one.get("repair")}.values()),
        "films": sum(bool(one["checks"]) for one in looks),
        "seconds": round(sum(one["seconds"] for one in looks), 3),
    }


def _raised(looks: Sequence[Record]) -> Iterator[dict[str, Any]]:
    before: set[str] = set()
    for look in looks:
        for alarm in look["alarms"]:
            if alarm["rule"] not in before:
                yield {**alarm, "env_steps": look["env_steps"], "share": look["share"]}
        before = {alarm["rule"] for alarm in look["alarms"]}


def doubtful(summary: Record) -> bool:
    """Whether what was trained is not what was asked for: an alarm stands, or the program was dropped."""
    return bool(summary.get("standing")) or summary.get("weight") == 0


def _why(repair: Record) -> str:
    return f": {repair['why']}" if repair.get("why") else ""


def sentences(arm: str, summary: Record) -> Iterator[str]:
    """What there is to say of the watch over ``arm``, so called; nothing where it never raised an alarm."""
    raised, standing = summary.get("raised") or [], summary.get("standing") or []
    for message in standing:
        yield f"{arm}: the reward is not to be trusted: {message}"
    if raised and not standing:
        yield f"{arm}: an alarm against the reward was raised after {raised[0]['env_steps']:,} steps, and is over"
    for program in summary.get("replaced") or []:
        yield f"{arm}: the program {program} was replaced by {summary['program']}"
    for repair in summary.get("repairs") or []:
        if repair["state"] != "found":
            yield f"{arm}: repair {repair['number']}: {repair['state']}{_why(repair)}"
    weight = summary.get("weight", 1)
    if weight < 1:
        rest = f"pays {weight:g} of its weight, and the environment's own reward the rest" if weight else "pays no more"
        yield f"{arm}: the program {rest}"
