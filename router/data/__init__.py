"""Outcomes: files in, a wide table out, split by query."""
