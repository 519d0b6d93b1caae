"""From templates to scores, from scores to candidates, from candidates to a `Decision`."""
