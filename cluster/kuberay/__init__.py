"""Manifests for Kubernetes: base, overlays, pinned schemas, and their offline validation."""
