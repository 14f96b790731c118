"""RLModules in what ``Algorithm.save_to_path`` wrote, by this version of carl or one whose modules lay elsewhere."""

import pickle
from pathlib import Path
from typing import Any

from ray.rllib.core import DEFAULT_MODULE_ID

MODULE_PATH = Path("learner_group") / "learner" / "rl_module" / DEFAULT_MODULE_ID
"""Where RLlib keeps the module."""

CONSTRUCTION = "class_and_ctor_args.pkl"
"""In that folder: the module's class and what it was constructed with."""

MOVED = {"carl.training.network": "carl.training.rllib.network"}
"""Modules of carl that older checkpoints name, and where their classes are now."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(MOVED.get(module, module), name)


def read_module(algorithm: Path) -> Any:
    """The RLModule with its weights from the folder ``algorithm``; raises whatever unpickling and RLlib raise."""
    path = (algorithm / MODULE_PATH).resolve()
    with (path / CONSTRUCTION).open("rb") as file:
        construction = _Unpickler(file).load()
    args, kwargs = construction["ctor_args_and_kwargs"]
    module = construction["class"](*args, **kwargs)
    module.restore_from_path(path)
    return module
