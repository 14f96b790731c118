"""Evaluation over a fixed list of seeds, every episode finished.

RLlib's own evaluation keeps the episodes that end first, which flatters: successes are short.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import gymnasium as gym
import numpy as np
import ray
import torch
from gymnasium.vector import SyncVectorEnv
from numpy.typing import NDArray

from carl.broadcast.channel import ChannelClient, Offer
from carl.broadcast.follower import Follower
from carl.broadcast.versions import VERSION
from carl.cluster import logs
from carl.cluster.core import clearly, lost
from carl.cluster.session import here
from carl.console.progress import Progress, silent
from carl.episodes.trajectory import Trajectory
from carl.errors import ResourceError, TaskError
from carl.rewards.mix import Mix
from carl.rewards.source import RewardSource
from carl.rewards.vector import PaidVectorEnv
from carl.seeding import Role, seed_of, seeds_of
from carl.statistics import wilson_interval
from carl.task import Environment, Task, blaming
from carl.training.film import FILMED, film
from carl.training.policy import Policy
from carl.training.rllib.runner import one_thread

SLOTS = 16
"""Environments stepped together in one process."""

ROUND = 2 * SLOTS
"""Episodes that a process plays before it reports."""


@dataclass(frozen=True)
class Outcome:
    """One episode that was played.

    Attributes:
        success: by the task's success rule, on its last step.
        length: in steps.
        ret: its return, by the reward that training pays.
        abstains: its frames that could not be judged.
        reward_version: the version that paid it; 0 for none.
        cut: whether it was truncated because the environment would not have ended it, see ``carl.task.LONGEST``.
        env_ret: the sum of the environment's own reward.
        shown: what the policy was shown last, as latched progress; empty if nothing is shown.
    """

    success: bool
    length: int
    ret: float
    abstains: int
    reward_version: int = 0
    cut: bool = False
    env_ret: float = 0.0
    shown: tuple[float, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """What a policy achieved, and the reward version that paid it; 0 for none.

    ``cut`` counts the episodes that the environment would not have ended (see ``carl.task.LONGEST``); ``interval`` is
    the 95 % Wilson score interval of the success rate.
    """

    episodes: int
    success_rate: float
    interval: tuple[float, float]
    mean_length: float
    mean_return: float
    abstains: int
    greedy: bool
    reward_version: int = 0
    cut: int = 0

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], *, greedy: bool) -> Self:
        """The summary of at least one outcome, with Wilson's 95 % interval of the success rate."""
        successes = sum(outcome.success for outcome in outcomes)
        return cls(
            episodes=len(outcomes),
            success_rate=successes / len(outcomes),
            interval=wilson_interval(successes, len(outcomes)),
            mean_length=float(np.mean([outcome.length for outcome in outcomes])),
            mean_return=float(np.mean([outcome.ret for outcome in outcomes])),
            abstains=sum(outcome.abstains for outcome in outcomes),
            greedy=greedy,
            reward_version=max(outcome.reward_version for outcome in outcomes),
            cut=sum(outcome.cut for outcome in outcomes),
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Exam:
    """What a policy is examined on: the task as it sees it in training, with the reward that pays there.

    During training that is the newest of the ``offers`` of its ``channel``, where the evaluating processes answer for
    it by name as env runners do; without a channel it is ``source``, under the number ``version``. ``origin`` is what
    their log records are labelled with.
    """

    task: Task
    mix: Mix
    source: RewardSource | None
    run_seed: int
    version: int = 1
    channel: ChannelClient | None = None
    offers: tuple[Offer, ...] = ()
    origin: Mapping[str, str] = field(default_factory=logs.origin)

    def pay(self, env: PaidVectorEnv, name: str) -> None:
        """Hand ``env`` its source on behalf of ``name``; raises what opening the only one raises."""
        if not self.mix.looks:
            return
        if self.channel is not None and self.offers:
            Follower(self.channel, name, env.set_source).begin(self.offers)
        elif self.source is not None:
            env.set_source(self.version, self.source)


Mark = NDArray[np.int64]
"""``int64[1]``: the seed whose episode was begun or stepped last; -1 before the first."""


class Share(gym.Wrapper[Any, Any, Any, Any]):
    """Plays the episodes of its share of seeds, one a reset, and then stands still; ``mark`` follows what it plays."""

    def __init__(self, env: Environment, seeds: Sequence[int], mark: Mark) -> None:
        super().__init__(env)
        self._seeds, self._mark = deque(seeds), mark
        self._seed = -1
        self._last: Any = None
        self._spent = False

    def reset(
        self,
        *,
        seed: int | None = None,  # noqa: ARG002  the share has the seeds
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Begin the share's next episode; ``seed`` does not count."""
        self._spent = not self._seeds
        if self._spent:
            return self._last, {}
        self._mark[0] = self._seed = self._seeds.popleft()
        self._last, info = self.env.reset(seed=self._seed, options=options)
        return self._last, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step of the current episode; after the last of the share the last observation again, with reward 0."""
        if self._spent:
            return self._last, 0.0, False, False, {}
        self._mark[0] = self._seed
        self._last, reward, terminated, truncated, info = self.env.step(action)
        return self._last, reward, terminated, truncated, info


def _share(task: Task, seeds: Sequence[int], mark: Mark) -> Environment:
    return Share(task.make(), seeds, mark)


def play(
    policy: Policy,
    exam: Exam,
    seeds: Sequence[int],
    *,
    greedy: bool,
    sampling_seed: int,
    name: str = "evaluator-0",
    mark: Mark | None = None,
) -> list[Outcome]:
    """Play one episode per seed to its end, several at a time, each slot its share; in this process, as ``name``.

    ``mark`` shows how far it came, also once this process is dead.
    """
    slots = min(SLOTS, len(seeds))
    mark = np.full(1, -1) if mark is None else mark
    with blaming(exam.task, "the making of an evaluation"):
        envs = SyncVectorEnv([partial(_share, exam.task, seeds[slot::slots], mark) for slot in range(slots)])
    env = PaidVectorEnv(envs, exam.task, mix=exam.mix)
    try:
        exam.pay(env, name)
        with torch.random.fork_rng():
            torch.manual_seed(sampling_seed)
            return _finish_all(policy, env, np.array([len(seeds[slot::slots]) for slot in range(slots)]), greedy)
    finally:
        env.close()


def _finish_all(policy: Policy, env: PaidVectorEnv, remaining: Any, greedy: bool) -> list[Outcome]:
    outcomes: list[Outcome] = []
    lengths, returns, env_returns = np.zeros(env.num_envs, dtype=int), np.zeros(env.num_envs), np.zeros(env.num_envs)
    began = np.zeros(env.num_envs, dtype=bool)
    with blaming(env.task, "a reset of an evaluation"):
        observations, info = env.reset()
    abstains = info["abstained"].astype(int)
    while remaining.any():
        actions = policy.act(observations, greedy=greedy)
        with blaming(env.task, "a step of an evaluation"):
            observations, rewards, terminated, truncated, info = env.step(actions)
        stepped = ~(began | env.idle)
        lengths += stepped
        returns += rewards * stepped
        env_returns += info["env_reward"] * stepped
        abstains += info["abstained"]
        began = (terminated | truncated) & stepped
        for slot in np.flatnonzero(began):
            outcomes.append(
                Outcome(
                    success=bool(info["success"][slot]),
                    length=int(lengths[slot]),
                    ret=float(returns[slot]),
                    abstains=int(abstains[slot]),
                    reward_version=int(info[VERSION][slot]),
                    cut=bool(info["cut"][slot]),
                    env_ret=float(env_returns[slot]),
                    shown=tuple(env.shown[slot].tolist()),
                )
            )
        lengths[began], returns[began], env_returns[began], abstains[began] = 0, 0.0, 0.0, 0
        remaining -= began
        env.idle = remaining == 0
    return outcomes


def _examiner(name: str, mark: Path) -> Any:
    remote: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=1)(_Examiner)
    return remote.options(scheduling_strategy=here()).remote(name, mark)


class Evaluator:
    """Examines policies in ``workers`` processes beside the training (0: in this one). A context manager.

    The processes are actors, not tasks: importing RLlib anew for each evaluation would take longer than playing.
    They take no CPU from the cluster's books, because the env runners, which hold them, rest meanwhile.
    """

    def __init__(self, workers: int = 2) -> None:
        self._names = [f"evaluator-{index}" for index in range(max(1, workers))]
        self._folder = TemporaryDirectory(prefix="carl-")
        self._marks = [Path(self._folder.name, name) for name in self._names]
        self._workers: list[Any] = [_examiner(*one) for one in zip(self._names[:workers], self._marks, strict=False)]
        self._asked: list[Any] = []
        self._channel: ChannelClient | None = None

    def evaluate(
        self,
        exam: Exam,
        policy: Policy,
        role: Role,
        episodes: int,
        *,
        greedy: bool,
        progress: Progress = silent,
    ) -> Evaluation:
        """The summary of ``play``."""
        return Evaluation.of(self.play(exam, policy, role, episodes, greedy=greedy, progress=progress), greedy=greedy)

    def play(
        self,
        exam: Exam,
        policy: Policy,
        role: Role,
        episodes: int,
        *,
        greedy: bool,
        progress: Progress = silent,
    ) -> list[Outcome]:
        """Play ``episodes`` episodes of ``exam`` on the seeds of ``role``; ``progress`` shows how many are over."""
        self._enroll(exam.channel)
        seeds = seeds_of(exam.run_seed, role, episodes)
        shared = ray.put((policy, exam)) if self._workers else None
        count = max(1, len(self._workers))
        outcomes: list[Outcome] = []
        for number, start in enumerate(range(0, episodes, ROUND * count)):
            progress("evaluating", start, episodes)
            part = seeds[start : start + ROUND * count]
            shares = [part[index::count] for index in range(count) if part[index::count]]
            draws = [seed_of(exam.run_seed, role, 0, number, index) for index in range(count)]
            if shared is None:
                outcomes += play(policy, exam, part, greedy=greedy, sampling_seed=draws[0])
                continue
            for mark in self._marks:
                mark.unlink(missing_ok=True)
            self._asked = [
                worker.play.remote(shared, share, greedy=greedy, sampling_seed=draw)
                for worker, share, draw in zip(self._workers, shares, draws, strict=False)
            ]
            with clearly():
                for result, mark in zip(self._asked, self._marks, strict=False):
                    outcomes += _got(result, exam.task, mark)
            self._asked = []
        progress("evaluating", episodes, episodes)
        return outcomes

    def film(self, exam: Exam, policy: Policy, number: int, episodes: int, cut: int | None = None) -> list[Trajectory]:
        """Episodes of the sampled policy with their frames, on seeds that nothing else uses: those of film ``number``.

        Each is cut after ``cut`` steps, if given. The first process plays any number of them, a further one ``FILMED``
        or more.
        """
        self._enroll(exam.channel)
        seeds = seeds_of(exam.run_seed, Role.WATCH, episodes, number)
        draw = partial(seed_of, exam.run_seed, Role.WATCH, number, episodes)
        if not self._workers:
            return film(policy, exam, seeds, cut=cut, sampling_seed=draw(0), name=self._names[0])
        shared = ray.put((policy, exam))
        busy = self._workers[: max(1, episodes // FILMED)]
        self._asked = [
            worker.film.remote(shared, seeds[index :: len(busy)], cut=cut, sampling_seed=draw(index))
            for index, worker in enumerate(busy)
        ]
        with clearly():
            filmed = [trajectory for result in self._asked for trajectory in ray.get(result)]
        self._asked = []
        return filmed

    def _enroll(self, channel: ChannelClient | None) -> None:
        """Enroll the processes at a channel that is new to them."""
        if channel is not None and channel != self._channel:
            self._channel = channel
            with suppress(ResourceError):  # a channel that is gone needs no names
                for name in self._names:
                    channel.enroll(name)

    def close(self) -> None:
        """End the processes, amid what they play if they were stopped there, and remove their files."""
        if not lost():
            for asked in self._asked:  # Ray would say of each that it is tried again
                ray.cancel(asked)
            for worker in self._workers:
                ray.kill(worker)
        self._workers, self._asked = [], []
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _got(result: Any, task: Task, mark: Path) -> list[Outcome]:
    """What an evaluating process played; raises TaskError if it ended, and ended again after a restart."""
    try:
        outcomes: list[Outcome] = ray.get(result)
    except ray.exceptions.RayActorError as error:
        raise (died(task, mark) if mark.exists() and not lost() else error) from None
    return outcomes


def died(task: Task, mark: Path) -> TaskError:
    """The error of an evaluating process that ended and left ``mark``."""
    seed = int(np.fromfile(mark, np.int64)[0])
    where = f"the episode of seed {seed} or one beside it" if seed >= 0 else "the making of its environments"
    return TaskError(
        f"task {task.name!r}: a process that evaluated ended twice, the last time in {where}: its environment ends "
        "it, as a renderer without a display may, or memory runs out there"
    )


class _Examiner:
    """One evaluating process. What it plays is seen in the file ``mark``."""

    def __init__(self, name: str, mark: Path) -> None:
        one_thread()
        self._name, self._mark = name, mark

    def play(self, shared: tuple[Policy, Exam], seeds: Sequence[int], **kwargs: Any) -> list[Outcome]:
        logs.join(shared[1].origin)
        mark = np.memmap(self._mark, np.int64, "w+", shape=1)
        mark[0] = -1
        return play(*shared, seeds, name=self._name, mark=mark, **kwargs)

    def film(self, shared: tuple[Policy, Exam], seeds: Sequence[int], **kwargs: Any) -> list[Trajectory]:
        logs.join(shared[1].origin)
        return film(*shared, seeds, name=self._name, **kwargs)
