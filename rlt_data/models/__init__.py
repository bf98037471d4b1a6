"""Models: names resolved to exact weights, and models loaded from local files.

Importing this package imports no torch and no transformers.
"""

from rlt_data.models.config import ModelConfig, find_context, read_model_config
from rlt_data.models.describe import ModelDescription, describe_models
from rlt_data.models.identity import ModelIdentity, resolve_model
from rlt_data.models.loading import choose_device, choose_dtype, load_model, load_tokenizer

__all__ = [
    "ModelConfig",
    "ModelDescription",
    "ModelIdentity",
    "choose_device",
    "choose_dtype",
    "describe_models",
    "find_context",
    "load_model",
    "load_tokenizer",
    "read_model_config",
    "resolve_model",
]
