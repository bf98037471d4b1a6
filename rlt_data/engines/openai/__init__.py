"""Generation by any OpenAI-compatible server."""
