"""The other sections: what was shown and asked, what is missing, the trained policy in motion, and provenance."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from carl.artefacts import RESULT, TRAJECTORIES
from carl.methods.arms import arm_of
from carl.runs.reader import Run, as_record
from carl.runs.report import words
from carl.runs.report.evidence import Tracer
from carl.runs.report.learning import outcomes
from carl.runs.report.pictures import TONES, animation, still
from carl.runs.words import cached, missed, number
from carl.training.abstains import sentences
from carl.training.watched import doubtful, summed
from carl.training.watched import sentences as of_watch


class Film(NamedTuple):
    """The trained policy in motion."""

    moving: str
    last: str
    caption: str
    subtasks: Sequence[str]


def pairs(run: Run) -> list[tuple[str, str]]:
    """Initial and goal frames that the VLM saw, as data URIs."""
    return [(still(initial), still(goal)) for initial, goal in run.pairs()]


def asked(run: Run) -> bool:
    """Whether a model was asked, as far as files say."""
    proposers = run.synthesis.get("proposers")
    return proposers is None or "model" in proposers


def film(run: Run, tracer: Tracer) -> Film | None:
    """The recorded episode of the policy trained on the code reward, or of another arm if there is none."""
    for arm in run.arms:
        trajectory = run.played(arm)
        if trajectory is not None:
            program = run.program_of(arm)
            progress = tracer(program, trajectory) if program else None
            moving, last = animation(trajectory.frames, progress, TONES)
            ended = "solved" if trajectory.success else "not solved"
            caption = f"Trained on the {arm_of(arm).words}. {len(trajectory)} steps, {ended}, seed {trajectory.seed}."
            names = [one.name for one in program.subtasks] if program and progress is not None else []
            return Film(moving, last, caption, names)
    return None


def vlm(run: Run) -> list[tuple[str, str]]:
    """What the search asked, and what it took."""
    usage, search = run.usage, run.synthesis or as_record(run.result.get("search"))
    spent = as_record(search.get("spent"))
    took = [("search", words.seconds(spent.get("seconds")))] if spent else []
    if not usage and search.get("proposers"):
        return [("VLM requests", "none"), ("programs tried", words.count(search.get("candidates"))), *took]
    tokens = [words.count(usage.get(key)) for key in ("prompt_tokens", "completion_tokens")]
    return [
        ("VLM requests", words.count(usage.get("calls"))),
        ("samples", words.count(usage.get("samples")) + _missed(usage)),
        ("tokens in / out", " / ".join(tokens)),
        ("VLM time", words.seconds(usage.get("seconds"))),
        *took,
    ]


def searched(run: Run) -> list[str]:
    """What is to be said of the search: of the accepted program, or of the best one where none was accepted."""
    notes = list(run.notes)
    best = as_record(run.synthesis.get("best"))
    if best and run.program is None:
        notes.append(f"The best program of the search is {best.get('file')}: it {best.get('words')}.")
    return notes


def _missed(usage: Mapping[str, Any]) -> str:
    """How many samples were wanted, if fewer came."""
    wanted = missed(usage)
    return "" if wanted is None else f" of {words.count(wanted)}"


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Leaves of nested mappings as ('a.b', shown)."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", words.figure(value)


def programs(run: Run) -> bool:
    """Whether the run's method looks for a program, or has the settings of that, as the sparse baselines."""
    return run.method == "code" or "synthesis" in run.config


def missing(run: Run) -> list[str]:
    """What a finished run has and this one lacks, in the order of the stages."""
    method, main = run.method, run.arms[0]
    learns = method in ("code", "sparse+progress")
    beside = method != "sparse" and as_record(run.config.get("train")).get("baselines", True)
    lacks = [
        ("no expert and random trajectories", learns and not run.files.holds(TRAJECTORIES)),
        ("no program was tried", learns and not run.candidates and run.program is None),
        ("no program was accepted", bool(run.candidates) and run.program is None),
        ("no verdict of verification on fresh episodes", run.program is not None and not run.verification),
        ("the program failed verification on fresh episodes", run.verification.get("accepted") is False),
        (f"no training on the {arm_of(main).words}", method != "sparse" and not run.curve(main)),
        ("no sparse baseline beside it", bool(beside) and not (run.curve("sparse") or run.curve("sparse+progress"))),
        ("no final evaluation", not outcomes(run)),
        (f"no {RESULT}: the run has not come to its end", not run.result),
    ]
    return [what for what, lacking in lacks if lacking]


def doubts(run: Run) -> list[str]:
    """A sentence for each training whose reward abstained too often, and for each alarm of a watch that stands."""
    newest = {arm_of(arm).words: run.evaluation(arm) or (run.curve(arm) or [{}])[-1] for arm in run.arms}
    watched = {arm_of(arm).words: summed(run.looks(arm)) for arm in run.arms}
    alarms = [line for arm, one in watched.items() if doubtful(one) for line in of_watch(arm, one)]
    return [*sentences(newest), *alarms]


def stages(run: Run) -> list[tuple[str, str, float]]:
    """Stages with the seconds they took, and those as a percentage of the longest."""
    taken = {name: number(value) or 0.0 for name, value in run.seconds.items()}
    longest = max(taken.values(), default=0.0) or 1.0
    return [(name, words.seconds(value), round(100 * value / longest, 1)) for name, value in taken.items()]


def provenance(run: Run) -> list[tuple[str, str]]:
    """Where the run came from, as (what, value); what is not recorded is left out."""
    result, model = run.result, as_record(run.result.get("vlm"))
    reward, counts = as_record(result.get("reward")), as_record(result.get("reward_counts"))
    experts = as_record(result.get("experts"))
    prompts = ", ".join(sorted({str(one["prompt"]) for one in run.exchanges if one.get("prompt")}))
    rows = [
        ("task", run.task_name),
        ("seed", result.get("seed", run.config.get("seed"))),
        ("expert episodes", experts.get("recorded") or None),
        ("expert episodes that failed and were passed over", experts.get("failed")),
        ("program", run.program.id if run.program else result.get("program_id")),
        *_origin(run),
        ("program that paid in the end, found by a repair", _repaired(run)),
        ("model", model.get("model") or as_record(run.config.get("vlm")).get("model")),
        ("prompts", prompts or None),
        ("candidates", result.get("candidates", len(run.candidates) or None)),
        ("reward", reward.get("kind")),
        ("progress in the observation", reward.get("progress_in_observation")),
        ("algorithm", result.get("algorithm")),
        ("environment steps per second", result.get("env_steps_per_s")),
        ("environment steps trained again after stops", result.get("rework_steps")),
        ("abstains in rollouts", result.get("abstains")),
        ("training episodes cut, as the environment sets no time limit", result.get("cut") or None),
        ("evaluation episodes cut so", as_record(result.get("evaluation")).get("cut") or None),
        ("judgements known from the cache", _cached(counts)),
        ("programs' processes replaced", counts.get("box_restarts")),
        ("env runners that put the source into quarantine", counts.get("quarantined")),
    ]
    return [(name, words.figure(value)) for name, value in rows if value is not None]


def _origin(run: Run) -> list[tuple[str, Any]]:
    """Where the program came from, and who approved it as it is."""
    origin = run.program.provenance if run.program else None
    approval = run.program.approval if run.program else None
    if origin is None:
        return []
    return [
        ("program proposed by", origin.origin or None),
        ("program edited from", origin.parent or None),
        ("digest of the pictures shown", origin.pictures or None),
        ("verdict", origin.verdict.digest if origin.verdict else None),
        ("approved by", f"{approval.by}, {approval.at}" if approval else None),
        *((f"episodes, {name}", _counted(counts)) for name, counts in origin.splits.items()),
    ]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def _repaired(run: Run) -> str | None:
    watched = summed(run.looks(run.arms[0]))
    return str(watched["program"]) if watched.get("replaced") else None


def _cached(counts: Mapping[str, Any]) -> str | None:
    """The share of judgements in rollouts that the cache answered."""
    share = cached(*(number(counts.get(key)) or 0.0 for key in ("cache_hits", "cache_misses")))
    return None if share is None else words.percent(share)
