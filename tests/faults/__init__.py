"""Faults that are injected into whole processes and real file systems."""
