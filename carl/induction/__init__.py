"""Reward programs without a model: what changes on the way to success, found in recorded episodes alone."""

from carl.induction.induce import Induced, Unseen, induce, induce_step, mingled

__all__ = ["Induced", "Unseen", "induce", "induce_step", "mingled"]
