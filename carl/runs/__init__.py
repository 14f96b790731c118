"""A run: its directory, the stages that fill it, and the readers that watch and report it."""
