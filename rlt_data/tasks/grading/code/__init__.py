"""The grader `code`: runs programs against unit tests in a sandbox, where a user allows it."""
