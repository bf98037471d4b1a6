"""Public dataset layouts: how a row of each becomes a question with its traces."""

from rlt_data.sources.layouts.base import Example, Explanation, Layout, Row
from rlt_data.sources.layouts.recognize import (
    LAYOUTS,
    describe_layouts,
    find_layout,
    recognize_layout,
    rename_columns,
)

__all__ = [
    "LAYOUTS",
    "Example",
    "Explanation",
    "Layout",
    "Row",
    "describe_layouts",
    "find_layout",
    "recognize_layout",
    "rename_columns",
]
