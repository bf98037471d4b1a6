"""Checks before the first step: of every example, of messages, and of what the built trainer does."""
