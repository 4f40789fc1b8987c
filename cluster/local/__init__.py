"""One machine: the pocket experts and what they are made from. Knows neither Ray nor vLLM."""
