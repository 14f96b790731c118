"""The arms of a run: what its policies are trained on, side by side."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from carl.config import RunConfig
from carl.errors import ConfigError
from carl.methods import method_of
from carl.nested import renamed

if TYPE_CHECKING:
    from carl.rewards.mix import Mix


@dataclass(frozen=True)
class Arm:
    """What one policy is trained on.

    Attributes:
        name: its folder under ``training/``.
        words: the reward, in sentences; ``short`` in tables.
        pays: whether the policy is paid by the run's source, or else by the environment alone.
        shows: whether it sees what the source shows.
    """

    name: str
    words: str
    short: str
    pays: bool
    shows: bool

    @property
    def looks(self) -> bool:
        """Whether it needs the source at all."""
        return self.pays or self.shows


ARMS = (
    Arm("code", "code reward", "code reward", pays=True, shows=True),
    Arm("sparse+progress", "sparse reward with the same observation", "sparse, same observation", False, True),
    Arm("sparse", "sparse reward without progress in it", "sparse, no progress shown", False, False),
)
"""Those of carl's own methods. The last two are trained for comparison beside the arm of any method."""

_KNOWN = {arm.name: arm for arm in ARMS}
BASELINES = ("sparse+progress", "sparse")


def arm_of(name: str) -> Arm:
    """The arm called ``name``; one that no installed method has is called by its name."""
    if name in _KNOWN:
        return _KNOWN[name]
    try:
        method = method_of(name)
    except ConfigError:
        return Arm(name, f"{name} reward", f"{name} reward", pays=True, shows=False)
    return Arm(name, method.words, method.words, method.pays, shows=True)


def arms_in(tree: Mapping[str, Any]) -> tuple[Arm, ...]:
    """The arms that a run whose ``config.json`` is ``tree`` may have trained, in the order in which they are shown."""
    reward = renamed(tree).get("reward")
    name = reward.get("method") if isinstance(reward, Mapping) else None
    return ARMS if name is None or name in _KNOWN else (arm_of(str(name)), *ARMS[1:])


def main_arm(config: RunConfig) -> Arm:
    """What the run is for; an arm that is paid by the source sees what it shows unless the run hides it."""
    method, arm = method_of(config.reward.method), arm_of(config.reward.method)
    hidden = method.pays and not config.reward.progress_in_observation
    return replace(arm, shows=method.shows(config) is not None and not hidden)


def arms_of(config: RunConfig) -> tuple[Arm, ...]:
    """What is trained: the run's method, and the sparse baselines unless that method is one of them."""
    main = main_arm(config)
    if main.name in BASELINES or not config.train.baselines:
        return (main,)
    beside = BASELINES if main.pays and main.shows else BASELINES[1:]
    return (main, *(_KNOWN[name] for name in beside))


def mix_of(config: RunConfig, arm: Arm) -> "Mix":
    """What a step of ``arm`` is worth in a run, and what the policy is shown."""
    from carl.rewards.mix import Mix

    shows = method_of(config.reward.method).shows(config) if arm.shows else None
    if not arm.pays:
        return Mix(0.0, 1.0, shows)
    return Mix(1.0, config.reward.env_reward_weight, shows)
