"""Nested settings: flattened, merged, renamed, and called by the names that ``--set`` takes. Imports no framework."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from carl.errors import closest


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested settings, by the names that ``--set`` takes."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves


def renamed(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with the names of today: ``reward.method`` was called ``reward.source``.

    Each tree is renamed before it is merged with another, so that the later one wins whichever name it uses. A tree
    that gives both, and not the same, keeps both: RewardConfig refuses them.
    """
    if isinstance(base := tree.get("base"), dict):  # of a sweep
        tree = {**tree, "base": renamed(base)}
    reward = tree.get("reward")
    if not isinstance(reward, dict) or "source" not in reward:
        return dict(tree)
    rest = {key: value for key, value in reward.items() if key != "source"}
    source, method = reward["source"], reward.get("method")
    if None not in (source, method) and source != method:
        return dict(tree)
    return {**tree, "reward": rest | {"method": method if source is None else source}}


def name_of_today(key: str) -> str:
    """The name, as ``--set`` takes it, of a setting whose older name ``key`` may be: ``reward.source``."""
    return key.removesuffix("source") + "method" if key in ("reward.source", "base.reward.source") else key


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` over ``below``, mapping by mapping; an empty mapping above takes the place of what is below."""
    both = {
        key: merged(below[key], value)
        for key, value in above.items()
        if value and isinstance(value, Mapping) and isinstance(below.get(key), Mapping)
    }
    return {**below, **above, **both}


def put(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set ``section.field`` in nested settings; raises ValueError if what ``key`` calls a section is a value."""
    *path, leaf = key.split(".")
    for name in path:
        tree[name] = {} if tree.get(name) is None else tree[name]
        tree = tree[name]
        if not isinstance(tree, dict):
            raise ValueError(f"{key}: {name} is not a section of settings")
    tree[leaf] = value


def given(section: BaseModel) -> dict[str, Any]:
    """The nested settings that were given for ``section``; the others have their defaults."""
    found: dict[str, Any] = {}
    for name in section.model_fields_set:
        value = getattr(section, name)
        settings = given(value) if isinstance(value, BaseModel) else value
        if not isinstance(value, BaseModel) or settings:
            found[name] = settings
    return found


def names(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """All fields of a configuration, and its sections, by the names that ``--set`` takes."""
    for name, field in kind.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from names(field.annotation, f"{prefix}{name}.")


def nearest(name: str, among: Iterable[str]) -> str:
    """What ``name`` may have been meant for, as words: of ``among``, one in its section or one elsewhere."""
    section, dot, leaf = name.rpartition(".")
    known = [one.rpartition(".") for one in among]
    beside = closest(leaf, [field for where, _, field in known if where == section])
    if beside:
        return f"; did you mean {section}{dot}{beside}?"
    elsewhere = closest(leaf, [field for _, _, field in known])
    found = next(("".join(parts) for parts in known if parts[2] == elsewhere), None)
    return f"; did you mean {found}?" if found else ""
