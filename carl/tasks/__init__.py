"""Tasks by name: the built-in ones, those of installed packages, and ``module:attribute`` for any other."""

from carl.tasks.builtin import BUILT_IN
from carl.tasks.registry import get_task, tasks

__all__ = ["BUILT_IN", "get_task", "tasks"]
