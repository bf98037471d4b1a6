"""Entry point of `rlt-data`."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
