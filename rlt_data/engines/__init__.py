"""Where text comes from: vLLM, OpenAI-compatible servers, transformers."""
