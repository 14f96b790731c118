"""Where generated code is checked and run: the static policy, and the process that it runs in."""
