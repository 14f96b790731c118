"""carl/training/rllib is the only room that touches RLlib: what it imports, keeps private, and lays out on disk."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import carl

CARL = Path(carl.__file__).parent
ROOM = CARL / "training" / "rllib"
OUTSIDE = [path for path in sorted(CARL.rglob("*.py")) if ROOM not in path.parents]

PARTS = {"env_runner", "env_runner_group", "learner_group", "local_replay_buffer", "action_dist_inputs", "custom_data"}
"""Attributes and keys of RLlib's algorithms, modules and episodes."""


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Each imported name with its module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((one.name, "") for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", one.name) for one in node.names)


def touched(code: str) -> set[str]:
    """What ``code``, a module outside the room, touches of RLlib."""
    tree = ast.parse(code)
    found, holds = set(), False
    for module, name in imports(tree):
        if module.startswith("ray.rllib") or (module, name) == ("ray", "rllib"):
            found.add(f"imports {module or name}")
        if module.startswith("carl.training"):
            holds = True
            if name.startswith("_"):
                found.add(f"imports {module}.{name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "os")
            if node.attr in PARTS or (holds and _is_private(node.attr) and not own):
                found.add(f"{ast.unparse(node)}")
        elif isinstance(node, ast.Constant) and node.value in PARTS:
            found.add(repr(node.value))
    return found


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_there_is_an_outside() -> None:
    assert len(OUTSIDE) > 100
    assert CARL / "training" / "loop.py" in OUTSIDE


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: str(path.relative_to(CARL)))
def test_no_other_module_touches_rllib(path: Path) -> None:
    assert not touched(path.read_text())


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("import ray.rllib.core", "imports ray.rllib.core"),
        ("def f():\n    from ray.rllib.core import Columns", "imports ray.rllib.core"),
        ("from ray import rllib", "imports ray"),
        ("from carl.training.rllib.algorithms import _tuned", "imports carl.training.rllib.algorithms._tuned"),
        ("from carl.training.policy import Policy\nPolicy.of(path)._module", "Policy.of(path)._module"),
        ("algorithm.env_runner_group.sync_weights()", "algorithm.env_runner_group"),
        ("module.forward_inference(batch)['action_dist_inputs']", "'action_dist_inputs'"),
    ],
)
def test_what_would_be_found(code: str, what: str) -> None:
    assert touched(code) == {what}
