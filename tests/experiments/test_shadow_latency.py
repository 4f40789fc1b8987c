"""Paired ratios of latencies, and the graph that they are measured on."""

import numpy as np
import pytest

from experiments.shadow_latency import ratio, table
from experiments.simulated_experts import default_graph, simulate_experts, user_configs


def test_equal_blocks_have_the_ratio_1_within_its_interval() -> None:
    rng = np.random.default_rng(0)
    with_it, without = (list(20 * np.exp(0.05 * rng.standard_normal(10))) for _ in range(2))
    middle, low, high = ratio(with_it, without)

    assert low < 1 < high
    assert low < middle < high
    assert ratio([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]) == pytest.approx((2, 2, 2))


def test_the_table_has_a_row_for_each_quantile() -> None:
    blocks = [[1.0, 2.0, 3.0], [1.0, 2.0, 4.0]]

    assert "| median | 2.00 | 2.00 | 1.000 (1.000 to 1.000) |" in table({True: blocks, False: blocks})


def test_simulated_experts_take_the_names_of_the_engines() -> None:
    graph = default_graph()
    simulate_experts(graph)
    experts = graph["applications"][1:]

    assert [app["args"]["name"] for app in experts] == list(user_configs(graph)["Ingress"]["experts"])
    assert {app["import_path"] for app in experts} == {"deployments.app:build_simulated"}
