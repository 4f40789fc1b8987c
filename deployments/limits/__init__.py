"""API keys, rate limits and admission control."""
