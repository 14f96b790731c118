"""The search for a program that passes the gate: proposers, what was tried, and the budget."""
