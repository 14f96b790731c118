"""Training on code rewards with RLlib: runners, the reward's broadcast, evaluation and the loop."""
