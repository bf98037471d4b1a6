"""The models that an `EngineConfig` runs: resolved, identified, and opened in an engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rlt_data.engines import Engine, open_engine
from rlt_data.errors import ModelError
from rlt_data.formats import ConversationFormat, build_student_messages, render_student_prompt
from rlt_data.models import ModelIdentity, load_tokenizer, resolve_model
from rlt_data.settings import Settings
from rlt_data.stages.runtime.engine_config import EngineConfig
from rlt_data.stages.runtime.run import StageRun


@dataclass(frozen=True)
class EngineModel:
    """A model that writes texts. `renderer` has the chat template of its prompts, if there is one."""

    model: ModelIdentity
    renderer: ModelIdentity | None

    def load_tokenizer(self, role: str) -> Any:
        """Load the tokenizer whose chat template renders prompts. Raises `ModelError` where there is none."""
        if self.renderer is None:
            raise ModelError(
                f"the {role}'s tokenizer, whose chat template renders prompts, is not on this machine",
                where=self.model.model,
                remedy="name a model with the same chat template: --tokenizer MODEL (a path or a cached hub "
                "id)",
            )
        return load_tokenizer(self.renderer)


def resolve_engine_model(config: EngineConfig, name: str, *, role: str, settings: Settings) -> EngineModel:
    """Resolve the model `name`; behind a server, its name and the model whose chat template renders prompts.

    Raises `ModelError` where the model, or the tokenizer that `config` names, does not exist.
    """
    if not config.is_served:
        model = resolve_model(name, role=role, settings=settings)
        return EngineModel(model, model)
    model = resolve_model(name, role=role, settings=settings, need="name")
    renderer: ModelIdentity | None = None
    try:
        renderer = resolve_model(
            config.tokenizer or name, role="tokenizer", settings=settings, need="tokenizer"
        )
    except ModelError:
        # A server with chat completions only needs none; otherwise rendering a prompt requires one.
        if config.tokenizer is not None:
            raise
    return EngineModel(model, renderer)


def identify_engine_model(config: EngineConfig, model: EngineModel) -> list[Any]:
    """Return what identifies a model as it is run, as JSON values: weights, template, options."""
    parts: list[Any] = [model.model.content_key]
    if config.is_served:
        renderer = None if config.uses_chat or model.renderer is None else model.renderer.content_key
        parts.append(["served", renderer])
    if config.model_options:
        parts.append(["model options", config.model_options])
    return parts


def write_user_prompt(
    format: ConversationFormat, tokenizer: Any, message: str
) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Write a conversation that asks a model `message`: as a rendered prompt, or without a tokenizer as
    (role, content), for an engine that renders prompts itself.

    Raises `InputError` for a text that is not valid Unicode.
    """
    if tokenizer is not None:
        return render_student_prompt(format, tokenizer, message).text, ()
    *parts, _ = build_student_messages(format, message, "", "")
    return "", tuple((part["role"], part["content"]) for part in parts)


@contextmanager
def open_model_engine(run: StageRun, config: EngineConfig, model: ModelIdentity) -> Iterator[Engine]:
    """Open the engine of one model, and close it at the end. Raises what `open_engine` raises."""
    with run.track(f"start the engine of {model.name}", None, "engines"):
        engine = open_engine(
            "openai" if config.is_served else config.engine,
            model,
            config.make_engine_options().model_copy(update={"notify": run.reporter.message}),
        )
    try:
        yield engine
    finally:
        engine.close()
