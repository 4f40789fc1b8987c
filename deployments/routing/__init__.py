"""The router deployment: batching, the served policy and its client."""
