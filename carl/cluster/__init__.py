"""Ray for a command: its start and its loss, room on it, metrics and logs."""
