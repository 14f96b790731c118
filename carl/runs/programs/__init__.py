"""Programs by hand: found in a run or a file, shown, compared, edited in a folder, brought back, and approved."""
