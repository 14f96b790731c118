"""From pictures to programs: ask a VLM to name the sub-tasks and to write, and mend, a program for each."""
