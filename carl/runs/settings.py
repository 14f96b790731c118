"""The settings of a run or a sweep as people write them: a YAML file and ``--set``, over what a directory holds."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from carl.artefacts import CONFIG, read_json
from carl.config import RunConfig
from carl.errors import ConfigError, briefly
from carl.methods import config_class
from carl.nested import merged, name_of_today, names, nearest, put, renamed
from carl.runs.grid import SweepConfig

NUMBERS = ("int", "float", "timestamp", "value")
"""What YAML 1.1 reads otherwise than people write it: 1e-4 as text, 1:30 as 90, 010 as 8, a day as a date."""

INT = re.compile(r"[-+]?(0x[0-9a-fA-F_]+|0o[0-7_]+|0b[01_]+|[0-9][0-9_]*)$")
FLOAT = re.compile(
    r"[-+]?((\.[0-9][0-9_]*|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?|\.?(inf|Inf|INF))$|\.(nan|NaN|NAN)$"
)

LONGEST_INT = 1e15
"""From here on whole numbers with an exponent are floats."""

STRUCTURED = re.compile(r"[\[{\"']|- |[\w.]+:\s")
"""How a value of ``--set`` begins that is more than one scalar, or quoted."""


Kind = TypeVar("Kind", bound=BaseModel)

WRONG = "the configuration is wrong"


class Loader(yaml.SafeLoader):
    """YAML's SafeLoader with the numbers of YAML 1.2. A name may begin with ``@`` and ``%``."""

    def check_plain(self) -> bool:
        """Whether an unquoted scalar begins here."""
        return self.peek() in "@%" or bool(super().check_plain())

    def int_of(self, node: yaml.ScalarNode) -> int:
        """The integer that ``node`` writes: decimal, or with the prefix 0x, 0o or 0b."""
        text = str(node.value).replace("_", "")
        return int(text, 0) if text.lstrip("+-")[1:2] in tuple("xob") else int(text)

    def float_of(self, node: yaml.ScalarNode) -> float | int:
        """The float that ``node`` writes; an integer for whole numbers with an exponent, as 1e5, to LONGEST_INT."""
        text = str(node.value).replace("_", "").lower()
        number = float(text.replace(".inf", "inf").replace(".nan", "nan"))
        return int(number) if "e" in text and abs(number) < LONGEST_INT and number.is_integer() else number


Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in NUMBERS]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _name, _pattern, _letters in (("int", INT, "-+0123456789"), ("float", FLOAT, "-+0123456789.iI")):
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _pattern, list(_letters))
Loader.add_constructor("tag:yaml.org,2002:int", Loader.int_of)
Loader.add_constructor("tag:yaml.org,2002:float", Loader.float_of)


def settings(task: str | None, seed: int | None, run_dir: Path | None, file: Path | None, sets: list[str]) -> RunConfig:
    """The configuration that a command line means; raises ConfigError.

    Later wins: the file, ``--set``, then the named options. A directory that already holds a run contributes what the
    command line leaves open, and may be named in place of the task. ``null`` sets a field back to its default, and
    ``{}`` empties a mapping. What is not given has the library's default here; ``carl.runs.resolve.resolved`` puts the
    task's in its place when the run is opened.
    """
    tree = _tree(file, sets)
    if task is not None and run_dir is None and (Path(task) / CONFIG).is_file():
        run_dir = Path(task)
        task = read_json(run_dir / CONFIG, dict).get("task")
    named = {"task": task, "seed": seed, "run_dir": run_dir}
    tree |= {key: value for key, value in named.items() if value is not None}
    where = {key: tree[key] for key in named if key in tree}
    directory = _valid(RunConfig, where, WRONG).directory
    if not (directory / CONFIG).exists():
        return _valid(config_class(tree), tree, WRONG)
    before = renamed(read_json(directory / CONFIG, dict))
    kind = config_class(merged(before, tree))
    both = merged(_shared(before, kind), tree) | {"run_dir": directory}
    try:
        return kind.model_validate(both)
    except ValidationError as error:
        if all(problem["loc"] and _has(tree, problem["loc"]) for problem in error.errors()):
            raise _wrong(WRONG, error, [*names(kind)]) from None
        there = (
            f"{directory / CONFIG} and the command line together are wrong (correct the file, or --set what is wrong)"
        )
        raise _wrong(there, error, [*names(kind)]) from None


def sweep_of(path: Path, sets: list[str]) -> SweepConfig:
    """The sweep that a YAML file and settings mean; raises ConfigError."""
    tree = _tree(path, sets)
    base = tree.get("base")
    of_base = names(config_class(base), "base.") if isinstance(base, dict) else ()
    return _valid(SweepConfig, tree, f"the sweep {path} is wrong", of_base)


def work_of(path: Path, sets: list[str]) -> RunConfig | SweepConfig:
    """The run or the sweep that a YAML file and settings mean; raises ConfigError."""
    tree = _tree(path, sets)
    if ("task" in tree) == ("base" in tree):
        raise ConfigError(f"{path} is neither a run, which names its task, nor a sweep, which has a base")
    return settings(None, None, None, path, sets) if "task" in tree else sweep_of(path, sets)


def value_of(text: str) -> Any:
    """What the value of a ``--set`` means: YAML if it is a collection or quoted, else one scalar of any letters."""
    if STRUCTURED.match(text):
        return yaml.load(text, Loader)  # a SafeLoader
    loader: Any = Loader("")
    node = yaml.ScalarNode(loader.resolve(yaml.ScalarNode, text.strip(), (True, False)), text.strip())
    return loader.construct_object(node)


def _valid(kind: type[Kind], tree: Mapping[str, Any], wrong: str, known: Iterable[str] = ()) -> Kind:
    """``tree`` as a configuration; its error names the nearest of ``kind``'s names and those ``known`` besides."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise _wrong(wrong, error, [*names(kind), *known]) from None


def _wrong(what: str, error: ValidationError, known: Sequence[str]) -> ConfigError:
    return ConfigError(f"{what}: {briefly(error, lambda name: nearest(name, known))}")


def _shared(before: Mapping[str, Any], kind: type[RunConfig]) -> Mapping[str, Any]:
    """``before`` without the sections of its own method, where another one is configured as ``kind`` now."""
    try:
        left_out = config_class(before).model_fields.keys() - kind.model_fields.keys()
    except ConfigError:  # that method is not installed any more
        left_out = before.keys() - kind.model_fields.keys()
    return {name: value for name, value in before.items() if name not in left_out}


def _has(tree: Any, path: tuple[int | str, ...]) -> bool:
    """Whether nested settings go as deep as ``path``."""
    return not path or (isinstance(tree, dict) and path[0] in tree and _has(tree[path[0]], path[1:]))


def _tree(file: Path | None, sets: list[str]) -> dict[str, Any]:
    tree = renamed(_read_yaml(file)) if file else {}
    for setting in sets:
        _set(tree, setting)
        tree = renamed(tree)
    return tree


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.load(path.expanduser().read_text(), Loader)  # a SafeLoader
    except FileNotFoundError:
        raise ConfigError(f"there is no configuration {path}") from None
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"the configuration {path} is not YAML: {_yaml_problem(error)}") from error
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise ConfigError(f"the configuration {path} holds no mapping of settings by name")
    found: dict[str, Any] = {}
    for key, value in tree.items():
        _put(found, key, value, str(path))
    return found


def _set(tree: dict[str, Any], setting: str) -> None:
    key, equals, value = setting.partition("=")
    if not equals or not all(map(str.strip, key.split("."))):
        raise ConfigError(f"--set {setting!r} is not of the form section.field=value")
    try:
        _put(tree, name_of_today(key.strip()), value_of(value), f"--set {setting!r}")
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {setting!r}: the value is not YAML: {_yaml_problem(error)}") from error


def _put(tree: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set ``section.field`` in ``tree``; raises ConfigError that begins with ``where`` it was asked for."""
    try:
        put(tree, key, value)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def _yaml_problem(error: yaml.YAMLError) -> str:
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    return f"{problem} in line {mark.line + 1}, column {mark.column + 1}" if problem and mark else briefly(error)
