"""The grader `reasoning_gym`: the own scorers of its datasets, in processes that cannot do harm."""
