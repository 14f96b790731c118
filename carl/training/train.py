"""Train: start or resume a training, with the reward's channel, env runners, evaluation and loggers around its loop."""

from contextlib import nullcontext
from dataclasses import replace

from carl.artefacts import LIVE, STATE
from carl.broadcast.channel import ChannelClient, reward_channel
from carl.cluster.core import lost
from carl.cluster.metrics import forget
from carl.console.progress import Progress, silent, working
from carl.errors import ConfigError
from carl.training.checkpoint import Progressed
from carl.training.evaluation import Evaluator
from carl.training.loggers import logging_to
from carl.training.loop import Loop
from carl.training.rllib.algorithms import build
from carl.training.rllib.control import stop
from carl.training.rllib.runner import RunnerSetup
from carl.training.sources import Sources, sources_of
from carl.training.teacher import Teacher
from carl.training.training import Trained, Training


def train(
    training: Training,
    progress: Progress = silent,
    *,
    evaluator: Evaluator | None = None,
    teacher: Teacher | None = None,
) -> Trained:
    """Train until the environment steps are used up or the success rate is reached; continue where it stopped.

    Ray has to be initialised. Without an ``evaluator`` it starts one of its own. What a ``teacher`` returns after an
    iteration is published as the next version of the reward.

    Raises:
        ConfigError: a reward that needs a source, without one; a directory with a training of something else.
        ResourceError: too few CPUs, or env runners that keep dying.
    """
    _require_source(training)
    latest = training.checkpoints.latest()
    progressed = Progressed.read(latest / STATE) if latest else Progressed()
    training.begin()
    if latest and training.over(progressed):
        return Trained(progressed, latest)
    progressed = replace(
        progressed, rework_steps=_rework(training, progressed), generation=progressed.generation + bool(latest)
    )
    sources = sources_of(latest, training.source)
    with reward_channel(_last_version(sources, progressed)) as channel:
        sources = _publish(sources, progressed, channel) if training.mix.looks else sources
        setup = RunnerSetup(training.task, training.mix, training.run_seed, channel, progressed.generation)
        with (
            nullcontext(evaluator) if evaluator else Evaluator() as examiner,
            logging_to(training.train.loggers, training.directory, training.about) as log,
        ):
            with working(progress, "starting the env runners"):
                algorithm = build(setup, training.train)
            try:
                loop = Loop(training, algorithm, channel, examiner, progressed, log, teacher, sources)
                if latest:
                    loop.restore(latest)
                return loop.run(progress)
            finally:
                if not lost():
                    stop(algorithm)
                forget(training.directory.name)


def _require_source(training: Training) -> None:
    if training.mix.looks and training.source is None:
        raise ConfigError("this reward needs a source: pass a verified program, or train with reward.method=sparse")


def _rework(training: Training, checkpoint: Progressed) -> int:
    """Environment steps that were lost in stops, the last one included: ``LIVE`` holds how far it had come."""
    path = training.directory / LIVE
    reached = Progressed.read(path) if path.exists() else checkpoint
    return reached.rework_steps + max(0, reached.env_steps - checkpoint.env_steps)


def _last_version(sources: Sources, progressed: Progressed) -> int:
    """The version before the one to publish: the same source keeps its version, another gets the next."""
    first = sources.at(progressed.reward_version)
    same = first is not None and first.id == progressed.source_id
    return progressed.reward_version - 1 if same else progressed.reward_version


def _publish(sources: Sources, progressed: Progressed, channel: ChannelClient) -> Sources:
    """Publish what paid last, and what was published since; returns the sources under their versions of now."""
    now = Sources(sources.own)
    for source in sources.in_turn(progressed.reward_version):
        version = channel.publish(source)
        now = now if source is sources.own else now.add(version, source)
    return now
