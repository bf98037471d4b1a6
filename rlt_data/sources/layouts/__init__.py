"""Public dataset layouts: how a row of each becomes a question with its traces."""

from rlt_data.sources.layouts.base import Example, Explanation, Layout, Row
from rlt_data.sources.layouts.catalog import LAYOUTS, find_layout
from rlt_data.sources.layouts.mapping import rename_columns
from rlt_data.sources.layouts.recognize import recognize_layout

__all__ = [
    "LAYOUTS",
    "Example",
    "Explanation",
    "Layout",
    "Row",
    "find_layout",
    "recognize_layout",
    "rename_columns",
]
