"""Environments that are watched: the same results, faults and their mending, and the end of all processes."""
