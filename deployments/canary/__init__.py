"""A canary's arms: what replicas measure of them, and the one coordinator that ends a worse canary."""
