"""What the deployments share: requests, messages, errors, protocols.

No Ray, no vLLM, no I/O.
"""
