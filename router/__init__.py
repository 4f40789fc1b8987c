"""TO-Router's library: fit, score, decide, save. No Ray, no HTTP, no globals."""
