"""The built-in tasks. Importing this is light: environments are imported when one is made."""

from carl.task import Task
from carl.tasks import classic, minigrid

BUILT_IN: tuple[Task, ...] = (*minigrid.TASKS, *classic.TASKS)
