"""Graders: is the answer of a completion the true one?"""
