"""Supervised fine-tuning of a teacher or a student."""
