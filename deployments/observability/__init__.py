"""Metrics, traces, the decision log, and gathering them from all replicas."""
