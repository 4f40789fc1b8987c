"""Routing methods, one file each; `registry` finds them, ours and a user's, by name."""
