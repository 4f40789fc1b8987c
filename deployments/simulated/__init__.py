"""An expert without an engine, for tests and load tests; its responses say that it is simulated."""
