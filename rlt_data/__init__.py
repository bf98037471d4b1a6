"""Dataset curation for Reinforcement Learning Teachers (arXiv 2506.08388)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlt_data.lake import Lake

    __version__: str

__all__ = ["Lake", "__version__"]


def __getattr__(name: str) -> Any:
    """Load `Lake` and look up the version on first use, so that `import rlt_data` stays light."""
    if name == "Lake":
        from rlt_data.lake import Lake

        return Lake
    if name == "__version__":
        from importlib.metadata import version

        return version("rlt-data")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
