"""Contracts to inherit."""

from carl.testing.task import TaskContract, difference

__all__ = ["TaskContract", "difference"]
