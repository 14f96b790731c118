"""Reward programs without a model: what changes on the way to success, found in recorded episodes alone."""

from carl.induction.induce import Induced, induce, induce_step

__all__ = ["Induced", "induce", "induce_step"]
