"""Checks before a deploy: configuration, experts, nodes, memory."""
