"""What the training loop does with an RLlib algorithm: iterate, take the acting module, count env runners, stop."""

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray.rllib.core import DEFAULT_MODULE_ID

from carl.cluster.core import clearly
from carl.training.rllib.appo import APPO
from carl.training.rllib.paid import trained_on
from carl.training.rllib.runner import COUNTS

MEANS = {"episode_return_mean": "mean_return", "episode_len_mean": "mean_length"}
"""RLlib's means over training episodes, and what they are called here."""


@dataclass(frozen=True)
class Sampled:
    """What an algorithm reports of one iteration.

    Attributes:
        env_steps, ended, succeeded: sampled steps; episodes that ended, and those of them that succeeded.
        counts: what the paid environments counted, by name.
        version: the newest reward version that an env runner held; 0 for none, or if none reported.
        paid_by: steps that were learned from, by the reward version that paid them.
        means: ``mean_return`` and ``mean_length`` of training episodes, where RLlib reports them.
    """

    env_steps: int
    ended: int
    succeeded: int
    counts: Mapping[str, int]
    version: int
    paid_by: Counter[int]
    means: Mapping[str, float]

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> "Sampled":
        """From RLlib's ``result`` of an iteration."""
        metrics: Mapping[str, Any] = result.get("env_runners", {})
        means = {ours: _number(metrics.get(theirs)) for theirs, ours in MEANS.items()}
        counts: Mapping[str, Any] = metrics.get(COUNTS, {})
        return cls(
            env_steps=_count(metrics, "num_env_steps_sampled"),
            ended=_count(metrics, "ended"),
            succeeded=_count(metrics, "succeeded"),
            counts={key: _count(counts, key) for key in counts},
            version=_count(metrics, "reward_version"),
            paid_by=trained_on(result),
            means={name: value for name, value in means.items() if value is not None},
        )


def iterate(algorithm: Any) -> Sampled:
    """Sample and learn once; an error of carl's in a learner's process is raised as it was there."""
    if not _asynchronous(algorithm):
        send_weights_to_the_restarted(algorithm)
    with clearly():
        return Sampled.of(algorithm.train())


def acting_module(algorithm: Any) -> Any:
    """The driver's RLModule with the newest weights."""
    if _asynchronous(algorithm):
        # Its env runners fetch the weights themselves; those of the driver's module would be the first ones.
        algorithm.env_runner_group.sync_weights(
            from_worker_or_learner_group=algorithm.learner_group, to_worker_indices=[], inference_only=True
        )
    return algorithm.env_runner.module


def weights_of(algorithm: Any) -> Any:
    """A copy of the weights of now, for ``begin_anew``."""
    return copy.deepcopy(algorithm.learner_group.get_weights())


def begin_anew(algorithm: Any, weights: Any) -> None:
    """Give the learners, and the env runners, these weights; what else they hold stays."""
    algorithm.learner_group.set_weights(copy.deepcopy(weights))
    # Not by sync_weights: a runner passes over weights with the sequence number that it has seen last.
    algorithm.env_runner_group.foreach_env_runner(partial(take, weights=weights[DEFAULT_MODULE_ID]))


def take(runner: Any, weights: Mapping[str, Any]) -> None:
    """Have an env runner act by those of ``weights`` that its module has."""
    runner.module.set_state({key: weights[key] for key in runner.module.get_state()})


def living_runners(algorithm: Any) -> int:
    """Env runners in processes of their own that answered when RLlib last looked."""
    return int(algorithm.env_runner_group.num_healthy_remote_workers())


def stop(algorithm: Any) -> None:
    """As RLlib's, but without runners that are dead: it would wait until they are back, to stop them.

    APPO's actor that hands weights out, which RLlib leaves to the garbage collector, ends as well.
    """
    group = algorithm.env_runner_group
    manager = group._worker_manager
    for index in set(manager.actor_ids()) - set(manager.healthy_actor_ids()):
        ray.kill(manager.remove_actor(index))
    algorithm.stop()
    if _asynchronous(algorithm):
        ray.kill(algorithm._env_runner_state_server)


def send_weights_to_the_restarted(algorithm: Any) -> None:
    """Send the learner's weights to runners that have none: RLlib restarts one that died idle and
    sends it none."""
    group = algorithm.env_runner_group
    blind = [index for index, seeing in group.foreach_env_runner(has_weights, local_env_runner=False) if not seeing]
    if blind:
        group.sync_weights(
            from_worker_or_learner_group=algorithm.learner_group, to_worker_indices=blind, inference_only=True
        )


def has_weights(runner: Any) -> tuple[int, bool]:
    """The index of an env runner, and whether it was ever sent weights."""
    return runner.worker_index, runner.has_weights


def _asynchronous(algorithm: Any) -> bool:
    """Whether runners are always at work: RLlib then notices that one was restarted, and sends it weights."""
    return isinstance(algorithm, APPO)


def _count(metrics: Mapping[str, Any], key: str) -> int:
    """RLlib reports a sum of nothing as NaN."""
    return int(_number(metrics.get(key)) or 0)


def _number(value: Any) -> float | None:
    return None if value is None or value != value else float(value)
