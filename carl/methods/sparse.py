"""The baselines: the environment's own reward alone, and with what a program would show of its progress.

Their configuration has the sections of code, so that a sweep compares them under one base.
"""

from dataclasses import replace

from carl.methods.code import CODE, CodeConfig, found
from carl.methods.method import Method

SPARSE_PROGRESS = replace(CODE, name="sparse+progress", words="sparse reward with the same observation", pays=False)
SPARSE = Method("sparse", words="sparse reward without progress in it", config=CodeConfig, pays=False, found=found)
