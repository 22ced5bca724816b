"""Distractors: what they are called, what they do to frames, and how they reach environments."""
