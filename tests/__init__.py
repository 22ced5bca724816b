"""Tests of rims_rl."""
