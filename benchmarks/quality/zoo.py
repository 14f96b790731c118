"""Bad and good programs before the gate: what the oracle calls bad has to be rejected, and what is good accepted."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.quality.accuracy import Held, Judged, judged
from benchmarks.quality.held_out import held_out
from benchmarks.quality.kept import Kept, check_fault
from benchmarks.zoo import PLANS, UNSEEN, Named, bad_programs, good_programs
from carl.cluster.session import ray_running
from carl.config import VerifyConfig
from carl.console.progress import Progress
from carl.episodes.missing import Missing
from carl.episodes.trajectory import Trajectory
from carl.methods.code import CodeConfig, episodes_of
from carl.runs.pipeline import Pipeline
from carl.tasks import get_task
from carl.verification import Evidence, verify

WORSE, PAID = 0.01, 0.02
"""A program is bad if its accuracy is worse than the original's by more, or if random play is paid more in part."""

EARLY = 0.01
"""Or if more than this share of the experts completes it before the end."""

CORES = 2

Sets = Sequence[Mapping[Evidence, Iterable[Trajectory]]]
"""Episodes to search with, and held-out ones: a run accepts what passes on both."""


def evidence(task: str, directory: Path, progress: Progress) -> tuple[Sets, VerifyConfig]:
    """What a run of the task judges programs on, in memory, and its thresholds."""
    pipeline = Pipeline(CodeConfig(task=task, run_dir=directory / f"{task}-zoo"), progress)
    pipeline.run(("collect",))
    config = pipeline.config
    assert isinstance(config, CodeConfig)
    with ray_running():
        found = [episodes_of(pipeline.work, number) for number in (0, 1)]
        return [{kind: _in_memory(episodes) for kind, episodes in one.items()} for one in found], config.verify


def _in_memory(episodes: Iterable[Trajectory]) -> Iterable[Trajectory]:
    return episodes if isinstance(episodes, Missing) else list(episodes)


def rejected_by(named: Named, sets: Sets, config: VerifyConfig) -> str:
    """The check that the program fails first, empty if it is accepted; raises BoxError for a fault of the machine."""
    for number, episodes in enumerate(sets):
        failed = verify(named.program, episodes, config).failed
        if failed:
            for frame in failed[0].frames:
                check_fault(frame.got)
            return ("held out: " if number else "") + failed[0].name
    return ""


def bad(label: Mapping[str, Any], original: Judged) -> bool:
    """Whether the oracle calls a program bad."""
    worse = label["accuracy"] < original.accuracy - WORSE
    return bool(worse or label["early"] > EARLY or label["paid"] > PAID)


def zoo(names: Sequence[str], directory: Path, kept: Kept, progress: Progress) -> dict[str, Any]:
    """Shares that the gate rejects, by kind of program; and the programs on which gate and oracle differ.

    Known-good programs that the oracle calls bad count as neither, and are listed.
    """
    rows = [row for name in names if name in PLANS for row in _of_task(name, directory, kept, progress)]
    isbad = [row for row in rows if row["bad"] and not row["known_good"]]
    good = [row for row in rows if not row["bad"] and row["known_good"]]
    last = [row for row in rows if row["kind"] == "dropped last"]
    return {
        "bad_rejected": _share(isbad),
        "good_rejected": _share(good),
        "dropped_last_rejected": _share(last),
        "bad": len(isbad),
        "good": len(good),
        "harmless_mutants_rejected": _share([row for row in rows if not row["bad"] and not row["known_good"]]),
        "by_task": {name: _by_task(isbad, good, name) for name in names if name in PLANS},
        "bad_by_kind": {kind: _of_kind(isbad, kind) for kind in sorted({row["kind"] for row in isbad})},
        "good_by_kind": {kind: _of_kind(good, kind) for kind in sorted({row["kind"] for row in good})},
        "bad_accepted": [_words(row) for row in isbad if not row["rejected"]],
        "good_rejected_by": [_words(row) for row in good if row["rejected"]],
        "good_called_bad": [_words(row) for row in rows if row["known_good"] and row["bad"]],
    }


def _share(rows: Sequence[Mapping[str, Any]]) -> float | None:
    return round(sum(bool(row["rejected"]) for row in rows) / len(rows), 4) if rows else None


def _of_kind(rows: Sequence[Mapping[str, Any]], kind: str) -> list[int]:
    """How many of a kind were rejected, of how many."""
    those = [row for row in rows if row["kind"] == kind]
    return [sum(bool(row["rejected"]) for row in those), len(those)]


def _by_task(isbad: Sequence[Mapping[str, Any]], good: Sequence[Mapping[str, Any]], task: str) -> dict[str, Any]:
    """Bad and good programs of one task: how many were rejected, of how many. ``unseen``: no limit was set with it."""
    of_it = ([row for row in rows if row["task"] == task] for rows in (isbad, good))
    bad_of, good_of = ([sum(bool(row["rejected"]) for row in rows), len(rows)] for rows in of_it)
    return {"bad": bad_of, "good": good_of, "unseen": task in UNSEEN}


def _words(row: Mapping[str, Any]) -> str:
    figures = ", ".join(f"{name} {row[name]:.4f}" for name in ("accuracy", "early", "paid"))
    return f"{row['task']}, {row['kind']}, {row['name']}: {figures}; {row['rejected'] or 'accepted'}"


def _of_task(task: str, directory: Path, kept: Kept, progress: Progress) -> list[dict[str, Any]]:
    """Every program of a task with the oracle's label and the gate's verdict, which are kept apart: labels stay as they
    are where rules change."""
    goods = good_programs(task)
    programs = [(named, True) for named in goods] + [(named, False) for named in bad_programs(task)]
    keys = [f"{task}/{named.kind}/{named.name}/{named.program.id}" for named, _ in programs]
    todo = [(f"label/{key}", _label, named) for key, (named, _) in zip(keys, programs, strict=True)]
    todo += [(f"gate/{key}", _verdict, named) for key, (named, _) in zip(keys, programs, strict=True)]
    if any(key not in kept.found for key, _, _ in todo):
        before = held_out(get_task(task)), *evidence(task, directory, progress)
        with ThreadPoolExecutor(CORES) as pool:
            waiting = [pool.submit(kept.get, key, partial(measure, named, *before)) for key, measure, named in todo]
            for number, one in enumerate(waiting):
                one.result()
                progress(f"judging programs of {task}", number + 1, len(waiting))
    original = Judged(**kept.found[f"label/{keys[0]}"])
    return [
        {
            "task": task,
            "kind": named.kind,
            "name": named.name,
            "known_good": good,
            **(label := kept.found[f"label/{key}"]),
            "rejected": kept.found[f"gate/{key}"],
            "bad": bad(label, original),
        }
        for key, (named, good) in zip(keys, programs, strict=True)
    ]


def _label(named: Named, held: Held, *_: Any) -> dict[str, Any]:
    return asdict(judged(named.program, named.events, held))


def _verdict(named: Named, _: Held, sets: Sets, config: VerifyConfig) -> str:
    return rejected_by(named, sets, config)
