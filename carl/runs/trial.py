"""A trial of a task: what recording, training or evaluation would refuse, found in seconds, before Ray starts."""

import hashlib
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryFile
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import iterate

from carl.config import TrainConfig
from carl.episodes.demonstrations import Demonstrations
from carl.episodes.play import attempt, made
from carl.errors import TaskError
from carl.rewards.frames import Frames
from carl.rewards.mix import Mix
from carl.rewards.source import width
from carl.rewards.vector import PaidVectorEnv
from carl.seeding import Role, seed_of, seeds_of
from carl.task import Environment, Frame, Task, blaming, closed

STEPS = 16
"""Steps of random play, and of the untrained policy, that are tried."""

EXPERTS = 10
"""Expert episodes of which one has to succeed: where half of them do, as many fail in one run of a thousand."""

EXPERTS_S = 20.0
"""Seconds after which the expert is left to collecting, which plays every episode to its end."""

DEATH_S = 60.0
"""Seconds for which it is awaited whether the environment ends its process."""

CHILD = "import pickle, sys; path, call = pickle.load(sys.stdin.buffer); sys.path[:] = path; pickle.loads(call)()"
GOODBYE = b"alive"
HELD: set[bytes] = set()
"""Digests of the trials that this process has passed."""


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Restore the global random number generators and torch's number of threads at the end."""
    import torch

    states, threads = (random.getstate(), np.random.get_state()), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class Trial:
    """What is tried of ``task`` for a run with ``run_seed``: its spaces with every one of ``mixes`` under the algorithm
    of ``train``, and its frames, if ``films``, by ``judge``, which raises TaskError for what it cannot judge. Of
    recorded demonstrations at most the share ``max_failed`` may fail.

    Nothing that is played counts, and no generator of random numbers is left at another state. All methods raise
    TaskError, and BoxError if no box starts here.
    """

    task: Task
    run_seed: int
    train: TrainConfig
    mixes: Sequence[Mix]
    films: bool = False
    judge: Callable[[Frame], None] | None = None
    max_failed: float = 0.0

    def hold(self, *, expert: bool) -> None:
        """Try everything, once in a process; ``expert``: whether expert episodes will be recorded."""
        key = hashlib.sha256(self._packed((self, expert))).digest()
        if key in HELD:
            return
        self.check_living()
        self.check_policies()
        if expert:
            self.check_expert()
        HELD.add(key)

    @_undisturbed()
    def check_policies(self) -> None:
        """Step two slots side by side, by the policies that training begins with, and judge their frames."""
        seeds = [seed_of(self.run_seed, Role.EXPERT, 0, slot) for slot in range(2)]
        with blaming(self.task, "the making of two environments side by side"):
            envs = SyncVectorEnv([self._make] * 2, autoreset_mode=AutoresetMode.NEXT_STEP)
        mixes = {width(mix.shows): mix for mix in self.mixes}.values()
        try:
            with closed(self.task, envs):
                # All of them are held until the end: a vector environment that is forgotten closes what it wraps.
                paid = [PaidVectorEnv(envs, self.task, mix=mix) for mix in mixes]
                self._check_together(envs, paid, seeds)
        finally:
            envs.closed = True  # or gymnasium closes it again when it is collected

    def _check_together(self, envs: SyncVectorEnv, paid: Sequence[PaidVectorEnv], seeds: list[int]) -> None:
        self._check_reset(envs.envs[0], seeds[0])
        for env in paid:
            self._step(env, seeds)
        if self.films and any(env.mix.looks for env in paid):
            self._judge(Frames(self.task, envs.envs))

    def _make(self) -> Environment:
        env: Any = self.task.make()
        if not isinstance(env, gym.Env):
            raise TaskError(f"task {self.task.name!r}: its make() gave {env!r:.80} instead of a gymnasium environment")
        return env

    def _check_reset(self, env: Environment, seed: int) -> None:
        space = env.observation_space
        with blaming(self.task, f"a reset with the seed {seed}"):
            began: Any = env.reset(seed=seed)
            if not (isinstance(began, tuple) and len(began) == 2):
                raise TaskError(
                    f"task {self.task.name!r}: the reset of its environment gave a {type(began).__name__} instead of "
                    "(observation, info), as the gym of before did: wrap it in the task's make()"
                )
            if isinstance(space, spaces.Box) and (shape := np.shape(began[0])) != space.shape:
                raise TaskError(
                    f"task {self.task.name!r}: an observation has the shape {list(shape)}, and observation_space "
                    f"{list(space.shape)}: mend one of them"
                )

    def _step(self, env: PaidVectorEnv, seeds: list[int]) -> None:
        """Slot 1 begins anew in between, so that the slots are at different steps."""
        from carl.training.policy import Policy
        from carl.training.rllib.algorithms import untrained

        spaces = env.single_observation_space, env.single_action_space
        policy = Policy(untrained(self.task, self.train, *spaces))
        doing = f"two episodes side by side, which began from the seeds {seeds}"
        with blaming(self.task, doing):
            observations, _ = env.reset(seed=list(seeds))
        for step in range(STEPS):
            actions = policy.act(observations, greedy=False)
            for action in iterate(env.action_space, actions):
                if not env.single_action_space.contains(action):
                    raise TaskError(f"task {self.task.name!r}: no policy acts in {env.single_action_space}")
            with blaming(self.task, doing):
                observations = env.step(actions)[0]
                if step == STEPS // 2:
                    observations, _ = env.reset(options={"reset_mask": np.array([False, True])})

    def _judge(self, frames: Frames) -> None:
        with blaming(self.task, "the taking of a frame"):
            taken = frames.take(np.arange(2))
        if self.judge:
            self.judge(taken)

    @_undisturbed()
    def check_expert(self) -> None:
        """Play expert episodes until one succeeds, by the success rule on the environment's own infos."""
        if self.task.demonstrations is not None:
            next(Demonstrations.of(self.task, self.max_failed).episodes(1))
            return
        seeds, deadline = seeds_of(self.run_seed, Role.EXPERT, EXPERTS, 0), time.monotonic() + EXPERTS_S

        def late() -> bool:
            return time.monotonic() > deadline

        with made(self.task, seeds[0]) as env:
            for seed in seeds:
                episode = attempt(self.task, env, seed, "expert", enough=late)
                if episode.success or late():
                    return
        raise TaskError(
            f"task {self.task.name!r}: its expert failed in {EXPERTS} episodes of {EXPERTS}, in that of seed "
            f"{seeds[-1]} after {len(episode)} steps: mend the expert, or what the Task calls success"
        )

    def check_living(self) -> None:
        """Play at random in a process beside, which an environment may end."""
        seed = seed_of(self.run_seed, Role.EXPERT, 0, 0)
        with (
            TemporaryFile() as given,
            TemporaryFile() as output,
            TemporaryFile() as complained,
        ):
            given.write(pickle.dumps((sys.path, self._packed(partial(play_at_random, self.task, seed)))))
            given.seek(0)
            command = [sys.executable, "-c", CHILD]
            with subprocess.Popen(command, stdin=given, stdout=output, stderr=complained) as process:
                try:
                    import carl.training.rllib.algorithms  # noqa: F401  which takes as long, and is needed next

                    process.wait(DEATH_S)
                except subprocess.TimeoutExpired:
                    return  # slow is not dead
                finally:
                    process.kill()
            output.seek(0)
            complained.seek(0)
            if GOODBYE not in output.read():
                last = complained.read().decode(errors="replace").strip().rpartition("\n")[2]
                raise TaskError(
                    f"task {self.task.name!r}: its environment ends its process ({_death(process.returncode)}) in the "
                    f"episode of seed {seed}, as a renderer without a display may; it wrote last: {last!r}"
                )

    def _packed(self, what: Any) -> bytes:
        from ray import cloudpickle

        dumps: Any = cloudpickle.dumps  # Ray leaves it untyped
        try:
            packed: bytes = dumps(what)
        except Exception as error:  # pickling runs the task's code
            raise TaskError(
                f"task {self.task.name!r} cannot travel to other processes ({type(error).__name__}: {error}): keep "
                "open files, windows and locks out of it; make() is the place for them"
            ) from error
        return packed


def play_at_random(task: Task, seed: int) -> None:
    """Make the environment, play a few steps of the episode of ``seed`` and take their frames; whatever that raises is
    for the driver to find."""
    with suppress(Exception), made(task, seed) as env:
        env.reset(seed=seed)
        env.action_space.seed(seed)
        for _ in range(STEPS):
            with suppress(Exception):  # one that cannot be filmed is stepped all the same
                task.frame(env)
            if any(env.step(env.action_space.sample())[2:4]):
                break
    sys.stdout.buffer.write(GOODBYE)
    sys.stdout.flush()
    os._exit(0)  # what happens at the very end of a process happens to nobody


def _death(status: int) -> str:
    """How a process ended, in words."""
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
