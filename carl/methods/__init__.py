"""The methods of reward design, each in one module, and the registry that finds them by name.

A package adds a method with an entry point in the group ``carl.methods``: the method's name, and a Method as value.
"""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from carl.config import RewardConfig, RunConfig
from carl.errors import ConfigError, did_you_mean
from carl.methods.blame import blamed
from carl.methods.method import Config, Method, Stage, Work
from carl.nested import renamed

__all__ = [
    "ENTRY_POINT_GROUP",
    "Config",
    "Method",
    "Stage",
    "Work",
    "config_class",
    "method_names",
    "method_of",
    "run_config",
]

ENTRY_POINT_GROUP = "carl.methods"


@cache
def method_of(name: str) -> Method[Any]:
    """The method called ``name``; only its own package is imported. Raises ConfigError, in one sentence."""
    from carl.methods.built_in import BUILT_IN

    brought = entry_points(group=ENTRY_POINT_GROUP)
    known = {method.name: method for method in BUILT_IN}
    named = brought.select(name=name)
    if name in known and not named:
        return known[name]
    if len(named) + (name in known) > 1:
        values = ", ".join(sorted(entry_point.value for entry_point in named))
        raise ConfigError(f"two methods are called {name!r}; one of them comes from {values}")
    for entry_point in named:
        return _loaded(entry_point)
    names = method_names()
    raise ConfigError(f"reward.method: {name!r} is not one of {', '.join(names)}{did_you_mean(name, names)}")


def method_names() -> list[str]:
    """The names of all methods: carl's own, then those of installed packages."""
    from carl.methods.built_in import BUILT_IN

    brought = {entry_point.name for entry_point in entry_points(group=ENTRY_POINT_GROUP)}
    return [*(method.name for method in BUILT_IN), *sorted(brought)]


def _loaded(entry_point: EntryPoint) -> Method[Any]:
    where = f"the method {entry_point.name!r} of the package {entry_point.dist.name if entry_point.dist else '?'}"
    try:
        method = entry_point.load()
    except (Exception, SystemExit) as error:  # importing a package runs its code
        raise ConfigError(
            f"cannot import {where}: {type(error).__name__}: {error}; mend or remove that package"
        ) from error
    if not isinstance(method, Method) or method.name != entry_point.name:
        raise ConfigError(f"{where} is {method!r:.80}, not a carl.methods.Method of that name")
    return blamed(method)


def config_class(tree: Mapping[str, Any]) -> type[RunConfig]:
    """The class of the configuration of nested settings, by their ``reward.method``; raises ConfigError."""
    reward = renamed(tree).get("reward")
    name = reward.get("method") if isinstance(reward, Mapping) else getattr(reward, "method", None)
    return method_of(name if isinstance(name, str) else RewardConfig().method).config


def run_config(tree: Mapping[str, Any]) -> RunConfig:
    """The configuration in nested settings, of the class of their method.

    Raises ValidationError, and ConfigError for a method that there is not.
    """
    return config_class(tree).model_validate(renamed(tree))
