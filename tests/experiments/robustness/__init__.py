"""Tests of the robustness reports."""
