"""Output for a terminal: text without control sequences, progress, and the console."""
