"""Ask a running endpoint for every expert's response to every query."""
