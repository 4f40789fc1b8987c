"""Manifests for Kubernetes: base, overlays, and what renders them."""
