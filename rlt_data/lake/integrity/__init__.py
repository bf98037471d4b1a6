"""Integrity: finds data that is damaged or gone, and repairs the tables."""
