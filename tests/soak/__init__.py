"""The soak: what it counts, what it asserts, and that it finds what is lost."""
