"""Env runners, learners and replay buffers on RLlib: the one room that uses its classes, internals and files."""
