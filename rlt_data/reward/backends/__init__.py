"""Backends that return the log-probabilities of given texts: torch, vLLM, a vLLM server."""
