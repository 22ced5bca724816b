"""Tests of rims_rl/bench."""
