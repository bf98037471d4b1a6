"""Tiny models made from nothing: random weights, chained arithmetic, the demo."""
