"""Load tokenizers and models of resolved identities: local files, safetensors, no code of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rlt_data.errors import ModelError, RltDataError, UsageError, require_module
from rlt_data.models.identity import ModelIdentity
from rlt_data.models.tokenizer_check import check_tokenizer, refuse_tokenizer_paths
from rlt_data.models.tokenizer_file import follows_file, refuse_tokenizer_file
from rlt_data.suggestions import suggest_name
from rlt_data.validation import explain_digits

DTYPES = ("auto", "float32", "bfloat16", "float16")


def choose_device(device: str) -> str:
    """Choose the device: `auto` is the first available of cuda, mps and cpu. Raises `UsageError`."""
    torch = require_module("torch", "models")
    mps = torch.backends.mps.is_available()
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    kind = device.split(":")[0]
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": mps}
    if not present.get(kind, False):
        have = ", ".join(name for name, available in present.items() if available)
        raise UsageError(f"device {device!r} is not available", remedy=f"use one of: auto, {have}")
    return device


def choose_dtype(dtype: str, device: str) -> str:
    """Choose the floating-point type: `auto` is float32 on a CPU, bfloat16 or else float16 elsewhere.

    Raises `UsageError` for any other type.
    """
    if dtype not in DTYPES:
        raise UsageError(f"unknown dtype {dtype!r}", remedy=suggest_name(dtype, DTYPES))
    if dtype != "auto":
        return dtype
    if device == "cpu":
        return "float32"
    torch = require_module("torch", "models")
    return "bfloat16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "float16"


def load_tokenizer(identity: ModelIdentity) -> Any:
    """Load a fast tokenizer (`transformers.PreTrainedTokenizerFast`) that returns character offsets.

    It splits text as its tokenizer.json defines, whichever class its configuration names. An adapter
    without a tokenizer of its own uses that of its base model. Raises `ModelError`, also for a tokenizer
    without a vocabulary, or with tokens that the model has no embedding for.
    """
    transformers = require_module("transformers", "models")
    directory = identity.require_directory()
    if identity.base is not None and not (directory / "tokenizer_config.json").is_file():
        return load_tokenizer(identity.base)
    refuse_tokenizer_paths(directory)
    with explain_load_errors("the tokenizer", identity.model, lambda: refuse_tokenizer_file(directory)):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            directory, local_files_only=True, trust_remote_code=identity.trust_remote_code
        )
        if tokenizer.is_fast and not follows_file(tokenizer, directory):
            tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(directory, local_files_only=True)
    if not tokenizer.is_fast:
        raise ModelError(
            "the tokenizer is not a fast one, and returns no character offsets",
            where=identity.model,
            remedy="use a model that has a tokenizer.json",
        )
    weights = (identity.base or identity).require_directory()
    check_tokenizer(tokenizer, directory, weights, identity.model)
    return tokenizer


@contextmanager
def explain_load_errors(
    subject: str, model: str, find_cause: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Convert whatever a library raises while it loads files of a model to a `ModelError`.

    `subject` begins the message, such as `the tokenizer`; `find_cause` may raise a better one.
    """
    try:
        yield
    except RltDataError:
        raise
    except Exception as error:  # Files that do not fit raise errors of any kind, RecursionError among them.
        find_cause()
        plain = isinstance(error, OSError | ValueError | ImportError | RuntimeError) and str(error)
        deep = isinstance(error, RecursionError)
        text = "a file is nested too deeply" if deep else explain_digits(error)
        raise ModelError(
            f"{subject} cannot be loaded: {text if plain or deep else f'{type(error).__name__}: {text}'}",
            where=model,
            remedy="copy the model again, with all of its files",
        ) from error


@contextmanager
def hide_progress_bars() -> Iterator[None]:
    """Hide the progress bars of transformers within the block, so that they do not break ours."""
    logging = require_module("transformers", "models").utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def load_model(
    identity: ModelIdentity, *, dtype: str = "auto", device: str = "auto", attention: str | None = None
) -> Any:
    """Load a causal language model for inference: evaluation mode, no gradients, on `device`.

    `dtype` is one of auto, float32, bfloat16, float16; `attention` names a transformers attention
    implementation (None: its default). A LoRA adapter is merged into its base. Raises `ModelError`, also
    where a weight is not a finite number.
    """
    torch = require_module("torch", "models")
    transformers = require_module("transformers", "models")
    device = choose_device(device)
    chosen = getattr(torch, choose_dtype(dtype, device))
    whole = identity.base or identity
    with explain_load_errors("the model", identity.model), hide_progress_bars():
        model, found = transformers.AutoModelForCausalLM.from_pretrained(
            whole.require_directory(),
            dtype=chosen,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=whole.trust_remote_code,
            output_loading_info=True,
            **({"attn_implementation": attention} if attention else {}),
        )
    # transformers initializes missing weights at random and only warns.
    missing = sorted(found["missing_keys"])
    if missing:
        raise ModelError(
            f"weights are missing: {', '.join(missing[:3])}{' and others' if missing[3:] else ''}",
            where=whole.model,
            remedy="copy the model again; its configuration may belong to another model",
        )
    if identity.base is not None:
        peft = require_module("peft", "train")
        with explain_load_errors("the adapter", identity.model):
            model = peft.PeftModel.from_pretrained(model, identity.require_directory()).merge_and_unload()
    model = model.to(device).eval().requires_grad_(False)
    _check_finite(model, identity.model, dtype=str(chosen).removeprefix("torch."))
    return model


def _check_finite(model: Any, name: str, *, dtype: str) -> None:
    """Raise `ModelError` where a parameter holds NaN or infinity, which would make every number NaN."""
    torch = require_module("torch", "models")
    for key, parameter in model.named_parameters():
        if not parameter.is_floating_point() or parameter.is_meta:
            continue
        # A sum is one pass without a copy; it can overflow, so a second look decides.
        if parameter.sum(dtype=torch.float32).isfinite() or parameter.isfinite().all():
            continue
        count = int((~parameter.isfinite()).sum())
        raise ModelError(
            f"the weights are damaged: {count} of {parameter.numel()} values of {key} are NaN or infinite",
            where=name,
            remedy="copy the model again, or use an earlier checkpoint"
            + ("; float16 cannot hold large weights: try dtype bfloat16" if dtype == "float16" else ""),
        )
