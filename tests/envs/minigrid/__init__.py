"""Tests of the MiniGrid tasks."""
