"""The serving commands of `to-router`: chat, keys, outcomes."""
