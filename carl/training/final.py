"""The final examination of a trained arm: both ways of acting on fresh seeds, and an episode to look at."""

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from gymnasium.vector import SyncVectorEnv
from gymnasium.vector.utils import iterate

from carl.artefacts import EPISODE, STATE, WATCH
from carl.console.progress import Progress, silent
from carl.episodes.actions import recorded
from carl.episodes.play import first_frame
from carl.episodes.tape import Tape, film
from carl.episodes.trajectory import Trajectory, TrajectoryStore
from carl.errors import ConfigError, TaskError
from carl.rewards.source import Need
from carl.rewards.vector import PaidVectorEnv
from carl.seeding import Role, seed_of
from carl.task import Task, blaming
from carl.training.checkpoint import Progressed
from carl.training.evaluation import Evaluator, Exam
from carl.training.policy import Policy
from carl.training.sources import sources_of
from carl.training.training import Training
from carl.training.watched import looks, summed

MODES = {"sampled": False, "greedy": True}
"""Name of a way of acting to whether it is greedy; the first is the headline's."""

_log = logging.getLogger(__name__)


def examine(training: Training, evaluator: Evaluator, progress: Progress = silent) -> dict[str, Any]:
    """Evaluate the end of ``training`` on the final seeds, and record one of their episodes beside its curve.

    Where no frame can be taken of the environment and the source needs none, no episode is recorded.

    Returns the arm's part of ``result.json``, in which ``filmed`` is whether an episode was recorded. Raises
    ConfigError if the arm was not trained to its end.
    """
    checkpoint = training.checkpoints.latest()
    progressed = Progressed.read(checkpoint / STATE) if checkpoint else Progressed()
    if checkpoint is None or not training.over(progressed):
        raise ConfigError(f"{training.directory} holds no finished training; run `carl train` first")
    policy = Policy.of(checkpoint)
    source = sources_of(checkpoint, training.source).at(progressed.reward_version)
    exam = replace(training.exam, source=source, version=progressed.reward_version or 1)
    outcome: dict[str, Any] = {
        "headline": next(iter(MODES)),
        "env_steps": progressed.env_steps,
        "seconds": round(progressed.seconds, 3),
        "env_steps_per_s": round(progressed.env_steps / progressed.seconds, 1),
        "iterations": progressed.iterations,
        "abstains": progressed.abstains,
        "abstaining": progressed.abstaining,
        "cut": progressed.cut,
        "counts": progressed.counts,
        "rework_steps": progressed.rework_steps,
        "reward_version": progressed.reward_version,
        "source_id": source.id if source else None,
        "checkpoint": checkpoint.name,
        "watch": summed(looks(training.directory / WATCH)),
    }
    for mode, greedy in MODES.items():
        evaluation = evaluator.evaluate(
            exam,
            policy,
            Role.EVALUATION,
            training.evaluation.episodes,
            greedy=greedy,
            progress=lambda _, done, total=None, mode=mode: progress(f"evaluating, {mode}", done, total),
        )
        outcome[mode] = evaluation.to_dict()
    outcome["filmed"] = _films(exam)
    if outcome["filmed"]:
        _record(policy, exam, training.directory / EPISODE)
    return outcome


def _films(exam: Exam) -> bool:
    """Whether to record an episode: a source needs frames, or the environment gives them all the same."""
    return (exam.source is not None and Need.FRAMES in exam.source.needs) or _gives_frames(exam.task)


def _gives_frames(task: Task) -> bool:
    try:
        first_frame(task)
    except TaskError as error:
        _log.warning("no episode of the policy is recorded for the report, since no frame can be taken: %s", error)
        return False
    return True


def _record(policy: Policy, exam: Exam, store: Path) -> None:
    seed = seed_of(exam.run_seed, Role.EVALUATION, 0)
    TrajectoryStore(store).write([record(policy, exam, seed)], replace=True)


def record(policy: Policy, exam: Exam, seed: int) -> Trajectory:
    """One episode of the sampled policy, with its frames; raises TaskError for what the task's code raises."""
    with blaming(exam.task, f"the making of its environment for seed {seed}"):
        envs = SyncVectorEnv([partial(exam.task.make)])
    world = FilmedSlot(PaidVectorEnv(envs, exam.task, exam.source, mix=exam.mix))
    try:
        world.film(policy, seed)
    finally:
        world.close()
    return world.tape.trajectory("policy")


class FilmedSlot(gym.vector.VectorWrapper):
    """A paid vector environment of one slot, whose episodes are recorded on ``tape``. An episode at a time."""

    def __init__(self, env: PaidVectorEnv) -> None:
        super().__init__(env)
        self.task, self.tape = env.task, Tape(env.task, env.unwrapped.envs[0])

    def film(self, policy: Policy, seed: int) -> None:
        """Play the episode of ``seed`` by sampling ``policy``; raises TaskError for what the task's code raises."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            film(self, lambda _: partial(policy.act, greedy=False), seed)

    def reset(  # type: ignore[override]  # the seed goes on the tape
        self, *, seed: int, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin the episode of ``seed``, and film its first frame."""
        self.tape.stop()
        began = self.env.reset(seed=seed, options=options)
        self.tape.begin(seed)
        return began

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take a step with ``actions[1]``, and film it."""
        action = recorded(next(iter(iterate(self.env.action_space, actions))))
        found = self.env.step(actions)
        _, _, terminated, truncated, info = found
        self.tape.add(
            action,
            float(info["env_reward"][0]),
            terminated=bool(terminated[0]),
            truncated=bool(truncated[0]),
            success=bool(info["success"][0]),
        )
        return found
