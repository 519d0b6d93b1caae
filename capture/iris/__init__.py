"""Near-infrared image of an eye to iris template."""
