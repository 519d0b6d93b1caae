"""Commands that measure: accuracy, speed, scale and reliability. Not part of the wheel."""
