"""The tasks that carl brings. Importing them is light: environments are imported when one is made."""

from carl.task import Task
from carl.tasks import classic, minigrid

BUILT_IN: tuple[Task, ...] = (*minigrid.TASKS, *classic.TASKS)
