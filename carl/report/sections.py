"""What each section of a report shows, read from a run's artefacts and made ready for the template."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from carl.program import RewardProgram
from carl.report import words
from carl.report.artefacts import ARMS, Candidate, Record, Run, as_record
from carl.report.charts import Series, line_chart
from carl.report.pictures import TONES, animation, still
from carl.report.strips import Progress, Strip, strip
from carl.trajectory import Trajectory

Tracer = Callable[[RewardProgram, Trajectory], Progress | None]
"""Runs a program on an episode of T steps: its latched progress ``float[T + 1, K]``, or None where it cannot."""

BEFORE_TRAINING = ("collect", "synthesize", "verify")
"""Stages that only the code reward needs; its curve over time starts after them."""

SOLVED = 0.95
"""Success rate that the table of arms calls reached."""


class SubTaskCard(NamedTuple):
    """A sub-task as the page shows it."""

    name: str
    description: str
    weight: float
    code: Markup


class Check(NamedTuple):
    """One check of a verification report."""

    name: str
    passed: bool
    figures: str
    evidence: str
    frames: Sequence[Record]


class Rejected(NamedTuple):
    """A rejected candidate: why, what it was, and what it made of the episode that decided."""

    name: str
    reasons: Sequence[str]
    checks: Sequence[Check]
    cards: Sequence[SubTaskCard]
    answer: str
    strip: Strip | None


class Mode(NamedTuple):
    """What an arm reached acting greedily, or sampling its actions; ``selected`` is what the head reports."""

    rate: str
    interval: str
    selected: bool


class ArmRow(NamedTuple):
    """One line of the table under the curves."""

    arm: str
    style: str
    name: str
    modes: Sequence[Mode]
    length: str
    env_steps: str
    reached: str


class Score(NamedTuple):
    """A bar of the comparison at the head: percentages of success, with the interval's ends."""

    style: str
    name: str
    said: str
    share: float
    low: float
    high: float


class Film(NamedTuple):
    """The trained policy in motion."""

    moving: str
    last: str
    caption: str
    subtasks: Sequence[str]


def style(arm: str) -> str:
    return "arm-" + arm.replace("+", "-")


def cards(program: RewardProgram | None) -> list[SubTaskCard]:
    """The sub-tasks with highlighted code."""
    shown = HtmlFormatter(nowrap=True)
    return [
        # pygments escapes what it highlights, so its output is markup
        SubTaskCard(one.name, one.description, one.weight, Markup(highlight(one.source.strip(), PythonLexer(), shown)))
        for one in (program.subtasks if program else ())
    ]


def pairs(run: Run) -> list[tuple[str, str]]:
    """Initial and goal frames that the VLM saw, as data URIs."""
    return [(still(initial), still(goal)) for initial, goal in run.pairs()]


def checks(report: Record) -> list[Check]:
    """The checks of a verification report, as far as they are understood."""
    found = report.get("checks")
    return [_check(as_record(one)) for one in (found if isinstance(found, list) else [])]


def _check(check: Record) -> Check:
    figures = as_record(check.get("figures"))
    shown = ", ".join(f"{str(name).replace('_', ' ')} {words.figure(value)}" for name, value in figures.items())
    frames = check.get("frames")
    return Check(
        name=str(check.get("name", "check")).replace("_", " "),
        passed=bool(check.get("passed")),
        figures=shown,
        evidence=words.cut(str(check.get("evidence") or check.get("message") or "")),
        frames=[as_record(one) for one in (frames if isinstance(frames, list) else [])],
    )


def strips(run: Run, tracer: Tracer) -> list[Strip]:
    """What the program saw in an expert episode and in a random one."""
    program = run.program or next((one.program for one in run.candidates[::-1] if one.program), None)
    if program is None:
        return []
    drawn = []
    for store, title in (("expert", "An expert"), ("random", "Random play")):
        trajectory = run.trajectory(f"trajectories/{store}")
        if trajectory is not None:
            drawn.append(strip(title, program, trajectory, tracer(program, trajectory)))
    return drawn


def rejected(run: Run, tracer: Tracer) -> list[Rejected]:
    """All candidates that were not accepted. The first that has a deciding episode gets a strip of it."""
    found: list[Rejected] = []
    for candidate in run.candidates:
        if not candidate.accepted:
            drawn = None if any(one.strip for one in found) else _deciding(run, candidate, tracer)
            found.append(_rejected(candidate, drawn))
    return found


def _rejected(candidate: Candidate, drawn: Strip | None) -> Rejected:
    failed = [one for one in checks(candidate.report) if not one.passed]
    reasons = [one.evidence or f"{one.name}: {one.figures}" for one in failed]
    return Rejected(
        name=candidate.name,
        reasons=[words.cut(candidate.rejected), *reasons] if candidate.rejected else reasons or ["no reason was given"],
        checks=failed,
        cards=cards(candidate.program),
        answer="" if candidate.program else words.cut(candidate.answer),
        strip=drawn,
    )


def _deciding(run: Run, candidate: Candidate, tracer: Tracer) -> Strip | None:
    """The strip of the first episode that a failed check names, its deciding frames marked."""
    if candidate.program is None:
        return None
    frames = [frame for one in checks(candidate.report) if not one.passed for frame in one.frames]
    for frame in frames:
        source, seed = str(frame.get("source")), words.number(frame.get("seed"))
        known = source in ("expert", "random") and seed is not None
        trajectory = run.trajectory(f"trajectories/{source}", int(seed or 0)) if known else None
        if trajectory is not None:
            here = [one for one in frames if (one.get("source"), one.get("seed")) == (source, frame.get("seed"))]
            title = f"What decided against {candidate.name}: {source} episode, seed {int(seed or 0)}"
            marks = _marks(candidate.program, here)
            return strip(title, candidate.program, trajectory, tracer(candidate.program, trajectory), marks)
    return None


def _marks(program: RewardProgram, frames: Sequence[Record]) -> dict[int, str]:
    marks: dict[int, str] = {}
    for frame in frames:
        subtask, step = frame.get("subtask"), words.number(frame.get("step"))
        if isinstance(subtask, int) and 0 <= subtask < len(program.subtasks):
            subtask = program.subtasks[subtask].name
        said = f"expected {words.figure(frame.get('expected'))}, got {words.figure(frame.get('got'))}"
        if step is not None:
            marks.setdefault(int(step), said if subtask is None else f"{subtask}: {said}")
    return marks


def charts(run: Run) -> list[tuple[str, Markup]]:
    """Success and return, over environment steps and over seconds, with their titles; none without points."""
    curves = {arm: points for arm in ARMS if (points := run.curve(arm))}
    head_start = _before_training(run)
    drawn = []
    for key, title, y_range in (("success_rate", "Success rate", (0.0, 1.0)), ("mean_return", "Mean return", None)):
        for over, label in (("env_steps", "environment steps"), ("seconds", "seconds")):
            series = [
                _series(arm, points, over, key, head_start if over == "seconds" and arm == "code" else 0.0)
                for arm, points in curves.items()
            ]
            chart = line_chart(f"{title} over {label}", label, series[::-1], y_range, percent=key == "success_rate")
            if chart:
                drawn.append((title, chart))
    return drawn


def _series(arm: str, points: Sequence[Record], over: str, key: str, offset: float) -> Series:
    kept: list[tuple[float, float]] = []
    band: list[tuple[float, float]] = []
    for point in points:
        x, y = words.number(point.get(over)), _measured(point, key)
        if x is not None and y is not None:
            kept.append((x + offset, y))
            band.extend(_interval(point) if key == "success_rate" else ())
    return Series(style(arm), words.ARM_NAMES[arm], kept, band)


def _measured(point: Record, key: str) -> float | None:
    """What the point's own evaluation found, over whole episodes; else what the point says."""
    found = words.number(as_record(point.get("evaluation")).get(key))
    return words.number(point.get(key)) if found is None else found


def _interval(point: Record) -> list[tuple[float, float]]:
    """The 95 % interval of a point's success rate, or nothing if its number of episodes is unknown."""
    found = words.outcome("", as_record(point.get("evaluation")))
    return [found.rate.interval] if found else []


def _before_training(run: Run) -> float:
    taken = run.seconds
    return sum(words.number(taken.get(stage)) or 0.0 for stage in BEFORE_TRAINING)


def head_start(run: Run) -> str:
    """How long the code reward took to be made; empty if that is not recorded."""
    taken = _before_training(run)
    return words.seconds(taken) if taken else ""


def outcomes(run: Run) -> dict[str, words.Outcome]:
    """What each evaluated arm reached."""
    found = {arm: words.outcome(arm, run.evaluation(arm), _steps(run, arm)) for arm in ARMS}
    return {arm: one for arm, one in found.items() if one is not None}


def scores(run: Run) -> list[Score]:
    """The comparison of the evaluated arms."""
    return [
        Score(style(arm), words.ARM_NAMES[arm], words.percent(one.rate.share), *_percentages(one.rate))
        for arm, one in outcomes(run).items()
    ]


def _percentages(rate: words.Rate) -> tuple[float, float, float]:
    low, high = rate.interval
    return round(100 * rate.share, 2), round(100 * low, 2), round(100 * high, 2)


def _steps(run: Run, arm: str) -> int | None:
    steps = words.number(run.evaluation(arm).get("env_steps"))
    if steps is None and arm == "code":
        steps = words.number(run.result.get("env_steps"))
    curve = [words.number(point.get("env_steps")) for point in run.curve(arm)[-1:]]
    steps = steps if steps is not None or not curve else curve[0]
    return None if steps is None else int(steps)


def arms(run: Run) -> list[ArmRow]:
    """The table of arms: those that were evaluated or have a curve."""
    reached = outcomes(run)
    return [
        ArmRow(
            arm,
            style(arm),
            words.ARM_NAMES[arm],
            [_mode(run.evaluation(arm), mode) for mode in ("greedy", "sampled")],
            _length(run.evaluation(arm)),
            words.count(_steps(run, arm)),
            _reached(run.curve(arm)),
        )
        for arm in ARMS
        if arm in reached or run.curve(arm)
    ]


def _mode(evaluation: Record, mode: str) -> Mode:
    found = words.outcome("", evaluation, mode=mode)
    selected = found is not None and evaluation.get("selected", "greedy") == mode
    return Mode(words.percent(found.rate.share), found.rate.range, selected) if found else Mode(words.DASH, "", False)


def _length(evaluation: Record) -> str:
    selected = as_record(evaluation.get(str(evaluation.get("selected", "greedy")))) or evaluation
    length = words.number(selected.get("mean_length"))
    return words.DASH if length is None else f"{length:.1f}"


def _reached(curve: Sequence[Record]) -> str:
    for point in curve:
        if (words.number(point.get("success_rate")) or 0.0) >= SOLVED:
            return f"{words.count(point.get('env_steps'))} steps, {words.seconds(point.get('seconds'))}"
    return "not reached" if curve else words.DASH


def film(run: Run, tracer: Tracer) -> Film | None:
    """The recorded episode of the policy trained on the code reward, or of another arm if there is none."""
    for arm in ARMS:
        trajectory = run.trajectory(f"training/{arm}/episode")
        if trajectory is not None:
            program = run.program
            progress = tracer(program, trajectory) if program else None
            moving, last = animation(trajectory.frames, progress, TONES)
            ended = "solved" if trajectory.success else "not solved"
            caption = (
                f"Trained on the {words.ARM_NAMES[arm]}. {len(trajectory)} steps, {ended}, seed {trajectory.seed}."
            )
            names = [one.name for one in program.subtasks] if program and progress is not None else []
            return Film(moving, last, caption, names)
    return None


def vlm(run: Run) -> list[tuple[str, str]]:
    """What the VLM was asked and what it took."""
    usage = run.usage
    tokens = [words.count(usage.get(key)) for key in ("prompt_tokens", "completion_tokens")]
    return [
        ("VLM requests", words.count(usage.get("calls"))),
        ("samples", words.count(usage.get("samples"))),
        ("tokens in / out", " / ".join(tokens)),
        ("VLM time", words.seconds(usage.get("seconds"))),
    ]


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Leaves of nested mappings as ('a.b', shown)."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", words.figure(value)


def missing(run: Run) -> list[str]:
    """What a finished run has and this one lacks, in the order of the stages."""
    learns = as_record(run.config.get("reward")).get("source", "code") != "sparse"
    beside = learns and as_record(run.config.get("train")).get("baselines", True)
    lacks = [
        ("no expert and random trajectories", learns and not (run.directory / "trajectories").exists()),
        ("no answer of the VLM", learns and not run.candidates and run.program is None),
        ("no program was accepted", bool(run.candidates) and run.program is None),
        ("no verdict of verification on fresh episodes", run.program is not None and not run.verification),
        ("the program failed verification on fresh episodes", run.verification.get("accepted") is False),
        ("no training on the code reward", learns and not run.curve("code")),
        ("no sparse baseline beside it", bool(beside) and not (run.curve("sparse") or run.curve("sparse+progress"))),
        ("no final evaluation", not outcomes(run)),
        ("no result.json: the run has not come to its end", not run.result),
    ]
    return [said for said, lacking in lacks if lacking]


def stages(run: Run) -> list[tuple[str, str, float]]:
    """Stages with the seconds they took, and those as a percentage of the longest."""
    taken = {name: words.number(value) or 0.0 for name, value in run.seconds.items()}
    longest = max(taken.values(), default=0.0) or 1.0
    return [(name, words.seconds(value), round(100 * value / longest, 1)) for name, value in taken.items()]


def provenance(run: Run) -> list[tuple[str, str]]:
    """Where the run came from, as (what, value); what is not recorded is left out."""
    result, model = run.result, as_record(run.result.get("vlm"))
    reward = as_record(result.get("reward"))
    prompts = ", ".join(sorted({str(one["prompt"]) for one in run.exchanges if one.get("prompt")}))
    rows = [
        ("task", run.task_name),
        ("seed", result.get("seed", run.config.get("seed"))),
        ("program", run.program.id if run.program else result.get("program_id")),
        ("model", model.get("model") or as_record(run.config.get("vlm")).get("model")),
        ("prompts", prompts or None),
        ("candidates", result.get("candidates", len(run.candidates) or None)),
        ("reward", reward.get("kind")),
        ("progress in the observation", reward.get("progress_in_observation")),
        ("algorithm", result.get("algorithm")),
        ("environment steps per second", result.get("env_steps_per_s")),
        ("abstains in rollouts", result.get("abstains")),
    ]
    shown = []
    for name, value in rows:
        if isinstance(value, Mapping):
            shown.append((name, ", ".join(f"{key} {said}" for key, said in flat(value))))
        elif value is not None:
            shown.append((name, words.figure(value)))
    return shown
