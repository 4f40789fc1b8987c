"""What watches the graph: Grafana dashboards (generated), Prometheus rules and their tests."""
