"""Fingerprint image to minutiae template."""
