"""Pocket experts and their policy: recipes, questions, training."""
