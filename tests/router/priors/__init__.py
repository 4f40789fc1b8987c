"""Priors: catalogue, facts, abilities, policies, updates."""
