"""Commands that need no server: error rates, explanations, exchange records."""
