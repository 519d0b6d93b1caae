"""Fingerprint comparison: 1:1 scores, calibration, 1:N search."""
