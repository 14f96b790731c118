"""Methods of reward design: each in one module, found by name."""
