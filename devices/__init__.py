"""Devices: from the physical world to frames, records and card data."""
