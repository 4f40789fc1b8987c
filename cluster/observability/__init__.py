"""Observation of the graph: Grafana dashboards (generated), Prometheus rules and their tests."""
