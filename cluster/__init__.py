"""Where TO-Router runs: one machine, a cluster, Kubernetes. Knows nothing of how a query is routed."""
