"""Iris comparison: 1:1 scores, calibration, 1:N scan."""
