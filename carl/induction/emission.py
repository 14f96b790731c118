"""Chains as reward programs."""

from collections.abc import Sequence

from carl.induction.features import Feature
from carl.induction.milestones import Condition, Milestone
from carl.induction.regions import Region
from carl.induction.table import Table
from carl.program import RewardProgram, SubTask

ORDINALS = ("first", "second", "third", "fourth", "fifth")


def program(table: Table, milestones: Sequence[Milestone]) -> RewardProgram:
    """Milestones in order as a program, each a sub-task."""
    return RewardProgram(subtasks=tuple(subtask(table, milestone) for milestone in milestones))


def subtask(table: Table, milestone: Milestone) -> SubTask:
    """A milestone as a sub-task: 1 once it is reached, else 0."""
    conditions = [(table.features[each.feature], each) for each in milestone.conditions]
    name = " and ".join(dict.fromkeys(feature.words(each.sense, each.threshold) for feature, each in conditions))
    return SubTask(name=name, code=source(conditions))


def source(conditions: Sequence[tuple[Feature, Condition]]) -> str:
    """The code of ``progress(frame, initial)``: 1.0 where all ``conditions`` hold."""
    names = _names(conditions)
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
    lines.append(f"    return float({' and '.join(parts)})\n")
    body = "\n\n".join([*(region.source(name) for region, name in names.items()), "\n".join(lines)])
    return f"{_head(body)}\n\n{body}"


def _names(conditions: Sequence[tuple[Feature, Condition]]) -> dict[Region, str]:
    regions = dict.fromkeys(region for feature, _ in conditions for region in feature.regions)
    return {region: f"thing{number}" if number > 1 else "thing" for number, region in enumerate(regions, 1)}


def _head(body: str) -> str:
    """The imports that ``body`` needs."""
    numpy = "import numpy as np\n\n" if "np." in body else ""
    return f"{numpy}from carl import vision\n"
