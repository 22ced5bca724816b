"""Robustness: trained agents in changed worlds, and what happens in their memories there."""
