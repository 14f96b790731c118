"""The seam of every reward: sources, their sessions, and the vector environment that they pay."""
