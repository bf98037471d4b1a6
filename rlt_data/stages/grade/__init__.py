"""Grade: stored completions are graded again, without a model."""
