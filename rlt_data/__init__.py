"""Dataset curation for Reinforcement Learning Teachers (arXiv 2506.08388)."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlt_data.lake import Lake

__version__ = version("rlt-data")
__all__ = ["Lake", "__version__"]


def __getattr__(name: str) -> Any:
    """Load `Lake` on first use, so that `import rlt_data` stays light."""
    if name == "Lake":
        from rlt_data.lake import Lake

        return Lake
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
