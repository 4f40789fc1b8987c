"""The expert deployment: vLLM behind Ray Serve LLM."""
