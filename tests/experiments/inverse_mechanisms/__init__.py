"""Tests of the inverse mechanisms."""
