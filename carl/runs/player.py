"""A trained policy of a run, which plays to be recorded."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gymnasium.vector import SyncVectorEnv

from carl.artefacts import CHECKPOINTS, STATE, of_arm
from carl.episodes.record import Play, Recorder
from carl.errors import ConfigError, command
from carl.methods import Work, method_of
from carl.methods.arms import main_arm, mix_of
from carl.rewards.vector import PaidVectorEnv
from carl.runs.directory import read_config
from carl.runs.resolve import resolved
from carl.tasks import get_task
from carl.training.checkpoint import Checkpoints, Progressed
from carl.training.final import FilmedSlot
from carl.training.policy import Policy
from carl.training.sources import sources_of


@contextmanager
def policy_of(run_dir: Path, recorder: Recorder) -> Iterator[Play]:
    """The newest checkpoint that was trained on the run's reward; it acts by sampling, and is shown progress as there.

    Raises ConfigError if there is none, or if it is of another task; StoreError or ProgramError if it cannot be used.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)  # importing ray made it chatty
    config = read_config(run_dir)
    if (task := get_task(config.task)).name != recorder.task.name:
        raise ConfigError(f"{run_dir} holds a run of {task.name}, not of {recorder.task.name}")
    checkpoint = Checkpoints(run_dir / of_arm(config.reward.method, CHECKPOINTS)).latest()
    if checkpoint is None:
        raise ConfigError(f"{run_dir} holds no trained policy yet; run {command('train', run_dir)} first")
    config = resolved(config, task)
    arm, method = main_arm(config), method_of(config.reward.method)
    policy, mix = Policy.of(checkpoint), mix_of(config, arm)
    own = method.source(Work(task, config, run_dir)) if method.source and arm.looks else None
    source = sources_of(checkpoint, own).at(Progressed.read(checkpoint / STATE).reward_version)
    env = SyncVectorEnv([lambda: recorder.env])
    world = FilmedSlot(PaidVectorEnv(env, recorder.task, source, mix=mix))

    def play(recorder: Recorder, seed: int) -> None:
        world.film(policy, seed)
        recorder.keep(world.tape)

    try:
        yield play
    finally:
        world.close()
