"""The load generator, without a graph behind it."""
