"""Comparison of faces."""
