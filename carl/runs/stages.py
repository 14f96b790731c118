"""The stages of a run in one table: those of its method, then train, evaluate and report."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carl.artefacts import CHECKPOINTS, CURVE, EPISODE, MANIFEST, RESULT, STATE, of_arm, whole, write_json
from carl.cluster.logs import for_a_while
from carl.config import RunConfig
from carl.console.progress import Progress
from carl.errors import ConfigError
from carl.methods import Stage, Work, method_of
from carl.methods.arms import Arm, arms_of, mix_of
from carl.methods.code import CODE
from carl.runs.files import Files
from carl.runs.reader import Run
from carl.training.checkpoint import Checkpoints

if TYPE_CHECKING:
    from carl.training.training import Training

Stages = tuple[Stage[Any], ...]


@contextmanager
def training(work: Work[Any], arm: Arm) -> Iterator["Training"]:
    """The training of an arm; log lines name its source meanwhile. Raises CarlError if the source is missing."""
    from carl.training.training import Training

    config, method = work.config, method_of(work.config.reward.method)
    source = method.source(work) if method.source and arm.looks else None
    with for_a_while(program=source.id if source else None):
        yield Training(
            task=work.task,
            source=source,
            mix=mix_of(config, arm),
            run_seed=config.seed,
            directory=work.directory / of_arm(arm.name, ""),
            train=config.train,
            evaluation=config.evaluation,
            settings=config.model_dump(mode="json"),
        )


def train(work: Work[Any]) -> None:
    """Train every arm of the run, each for as many steps; the method's teacher follows the training of its own arm."""
    from carl.training.train import train

    method = method_of(work.config.reward.method)
    for arm in arms_of(work.config):
        teacher = method.teacher(work) if method.teacher and arm.name == method.name else None
        with training(work, arm) as what:
            try:
                train(what, _labelled(work.progress, arm), evaluator=work.evaluator(), teacher=teacher)
            finally:
                getattr(teacher, "close", _nothing)()


def _nothing() -> None:
    """What there is to close of a teacher without a ``close``."""


def evaluate(work: Work[Any]) -> None:
    """Examine every arm on seeds that nothing else uses, record an episode of each, and sum up the run."""
    from carl.runs.result import assemble
    from carl.training.final import examine

    outcomes = {}
    for arm in arms_of(work.config):
        with training(work, arm) as what:
            outcomes[arm.name] = examine(what, work.evaluator(), _labelled(work.progress, arm))
    write_json(work.directory / RESULT, assemble(work, outcomes))


def report(work: Work[Any]) -> None:
    """Write the report; raises ConfigError if there is nothing to report."""
    from carl.runs.report import build_report

    run = Run(Files(work.directory))
    if not run.took:
        raise ConfigError(f"{work.directory} holds nothing to report yet; run {work.command('run')}")
    if run.result:
        write_json(work.directory / RESULT, {**run.result, "seconds": run.took})
    build_report(work.directory)


def _labelled(progress: Progress, arm: Arm) -> Progress:
    return lambda label, done, total=None: progress(f"{label} ({arm.name})", done, total)


def _trainings(directory: Path, config: RunConfig) -> str | None:
    """The newest checkpoints of all arms, with a digest of their counters."""
    found = []
    for arm in arms_of(config):
        curve = directory / of_arm(arm.name, CURVE)
        newest = Checkpoints(directory / of_arm(arm.name, CHECKPOINTS), curve).newest()
        if newest is None or not curve.exists():
            return None
        found.append(f"{arm.name} {newest.name} {hashlib.sha256((newest / STATE).read_bytes()).hexdigest()[:8]}")
    return ", ".join(found)


def _result(directory: Path, config: RunConfig) -> str | None:
    """Whether the result is there, and the episode of every arm that was filmed."""
    if not (directory / RESULT).exists():
        return None
    run = Run(Files(directory))
    filmed = [arm.name for arm in arms_of(config) if run.evaluation(arm.name).get("filmed", True)]
    there = all((directory / of_arm(arm, f"{EPISODE}/{MANIFEST}")).exists() for arm in filmed)
    return "there" if there else None


LAST: Stages = (
    Stage(
        "train",
        train,
        _trainings,
        settles=("reward", "train", "verify.require_approval"),
        help="Train on the program's reward, and on the sparse baselines.",
    ),
    Stage(
        "evaluate",
        evaluate,
        _result,
        settles=("evaluation",),
        help="Evaluate what was trained on seeds that nothing else uses.",
    ),
    Stage("report", report, lambda *_: "anew each time", help="Write the report, one HTML file.", alone=True),
)
"""What every run ends with."""

BUILT_IN: Stages = (*CODE.stages, *LAST)
ORDER = tuple(stage.name for stage in BUILT_IN)
"""Names of the stages that have a command. Those that the method of a run lacks have nothing to do there."""


def stages_of(config: RunConfig) -> Stages:
    """The stages of a run, in their order; raises ConfigError for a method that there is not."""
    return (*method_of(config.reward.method).stages, *LAST)


def known(config: RunConfig) -> set[str]:
    """Names of stages that ``stages.json`` may hold: an older carl noted those of code in every run."""
    return {stage.name for stage in (*BUILT_IN, *stages_of(config))}


def check_names(stages: Mapping[str, Any], config: RunConfig, where: str) -> None:
    """Raise ConfigError if ``stages.json``, at ``where``, notes a stage that the run cannot have."""
    with whole(where):
        if unknown := stages.keys() - known(config):
            raise ValueError(f"{min(unknown)} is not a stage")


def settled_by(config: RunConfig) -> dict[str, str]:
    """Sections and settings of the configuration that may change until a stage is done, and that stage: what it and the
    stages before made follows from them. All else is settled at once.

    Sections of the method that none of its stages settles are settled by the training. A setting that is named by
    itself follows its own stage, not that of its section.
    """
    own = type(config).model_fields.keys() - RunConfig.model_fields.keys()
    return dict.fromkeys(own, "train") | {
        section: stage.name for stage in stages_of(config) for section in stage.settles
    }


def made(stage: str, directory: Path, config: RunConfig) -> str | None:
    """What ``stage`` left in ``directory``; None if it is not there. Raises CarlError where a file is damaged."""
    return next(one for one in stages_of(config) if one.name == stage).made(directory, config)
