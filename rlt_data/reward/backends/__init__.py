"""Other ways than our own forward passes to the log-probabilities of given texts."""
