"""Checks and runs generated code: the static policy, and the process in which programs run."""
