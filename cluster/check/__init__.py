"""The checks before a deploy: configuration, experts, nodes, memory."""
