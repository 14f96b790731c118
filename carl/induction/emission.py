"""Chains as reward programs."""

from collections.abc import Sequence

from carl.induction.features import AHEAD, Feature, Pointing, number
from carl.induction.grading import Grade
from carl.induction.milestones import Condition, Milestone
from carl.induction.regions import Region
from carl.induction.table import Table
from carl.program import RewardProgram, SubTask

ORDINALS = ("first", "second", "third", "fourth", "fifth")


def program(table: Table, milestones: Sequence[Milestone], grades: Sequence[Grade | None]) -> RewardProgram:
    """Milestones in order as a program, each a sub-task."""
    pairs = zip(milestones, grades, strict=True)
    return RewardProgram(subtasks=tuple(subtask(table, milestone, grade) for milestone, grade in pairs))


def subtask(table: Table, milestone: Milestone, grade: Grade | None = None) -> SubTask:
    """A milestone as a sub-task: 1 once it is reached, else what its grade says, or 0."""
    conditions = [(table.features[each.feature], each) for each in milestone.conditions]
    name = " and ".join(dict.fromkeys(feature.words(each.sense, each.threshold) for feature, each in conditions))
    return SubTask(name=name, code=source(conditions, grade))


def source(conditions: Sequence[tuple[Feature, Condition]], grade: Grade | None = None) -> str:
    """The code of ``progress(frame, initial)``: 1.0 where all ``conditions`` hold, else by ``grade``."""
    features = [feature for feature, _ in conditions]
    names = _names([*features, grade.distance] if grade else features)
    lines = ["def progress(frame, initial):"]
    parts = []
    for (feature, each), ordinal in zip(conditions, ORDINALS, strict=False):
        code = feature.code(each.sense, each.threshold, [names[region] for region in feature.regions])
        lines.append(f"    # {feature.words(each.sense, each.threshold)}")
        if len(conditions) == 1:
            parts = [code]
            break
        lines.append(f"    {ordinal} = {code}")
        parts.append(ordinal)
    done = " and ".join(parts)
    lines += _graded(done, grade, names) if grade else [f"    return float({done})", ""]
    helpers = [AHEAD] if any(isinstance(feature, Pointing) for feature in features) else []
    body = "\n\n".join([*helpers, *(region.source(name) for region, name in names.items()), "\n".join(lines)])
    return f"{_head(body)}\n\n{body}"


def _graded(done: str, grade: Grade, names: dict[Region, str]) -> list[str]:
    return [
        f"    if {done}:",
        "        return 1.0",
        f"    # on the way: {grade.distance.seen.words} comes nearer to {grade.distance.where.words}",
        f"    away = {grade.distance.value([names[grade.distance.where]])}",
        f"    return float({number(grade.cap)} * max(0.0, 1 - away / {number(grade.far)}))",
        "",
    ]


def _names(features: Sequence[Feature]) -> dict[Region, str]:
    regions = dict.fromkeys(region for feature in features for region in feature.regions)
    return {region: f"thing{number}" if number > 1 else "thing" for number, region in enumerate(regions, 1)}


def _head(body: str) -> str:
    """The imports that ``body`` needs."""
    numpy = "import numpy as np\n\n" if "np." in body else ""
    return f"{numpy}from carl import vision\n"
