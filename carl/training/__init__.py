"""Training on a reward source with RLlib: the loop, its teacher, evaluation, checkpoints and policies."""
