"""Episodes: how they are recorded, by whom, and how they are kept."""
