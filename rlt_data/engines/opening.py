"""Which engine a name means; its module is imported when it is opened."""

from __future__ import annotations

from rlt_data.engines.base import Engine, EngineName, EngineOptions
from rlt_data.errors import UsageError, require_module
from rlt_data.models.identity import ModelIdentity


def open_engine(name: EngineName, identity: ModelIdentity, options: EngineOptions | None = None) -> Engine:
    """Open an engine by name for one model; `auto` is vLLM wherever it is installed and can run the model.

    Raises `MissingExtraError` where the engine's packages are absent, `UsageError` for an unknown name.
    """
    options = options or EngineOptions()
    unused = None
    if name == "auto":
        from rlt_data.engines.vllm.engine import explain_unusable, find_vllm

        reason = explain_unusable(identity, options)
        name = "transformers" if reason else "vllm"
        unused = f"vLLM is installed, but does not run this: {reason}" if reason and find_vllm() else None
    if name == "vllm":
        from rlt_data.engines.vllm.engine import VllmEngine

        return VllmEngine(identity, options)
    if name == "openai":
        require_module("httpx", "openai")
        from rlt_data.engines.openai.engine import OpenAIEngine

        return OpenAIEngine(identity, options)
    if name == "transformers":
        require_module("torch", "models")
        require_module("transformers", "models")
        from rlt_data.engines.transformers import TransformersEngine

        return TransformersEngine(identity, options, notes=[unused] if unused else ())
    raise UsageError(f"unknown engine {name!r}", remedy="one of auto, vllm, transformers, openai")
