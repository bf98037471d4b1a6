"""Generation by vLLM in a child process."""
