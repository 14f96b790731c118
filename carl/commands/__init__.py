"""Groups of commands, and what all commands print with."""
