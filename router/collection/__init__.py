"""Collect every expert's answer to every query from a running endpoint."""
