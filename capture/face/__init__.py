"""Portraits to face templates."""
