"""The pocket experts are probed by their own generator."""

from cluster.pocket.probes import fits, probes
from router.cli import parser
from router.experts import ExpertProfile
from router.priors.catalogue import KINDS
from router.priors.start import StartExpert


def expert(model: str) -> StartExpert:
    return StartExpert(ExpertProfile(model.rsplit("/", 1)[-1]), model)


POCKET = [expert(f"cluster/local/experts/{name}") for name in ("words", "atlas", "arithmetic")]


def test_a_graph_of_pocket_experts_is_recognised() -> None:
    assert fits([*POCKET, expert("cluster/local/models/chat")])
    assert not fits([POCKET[0], expert("Qwen/Qwen3-32B")])


def test_probes_are_checked_exactly_and_differ_by_seed() -> None:
    found = probes(20, seed=1)

    assert len(found) == 30
    assert {probe.check for probe in found} == {"exact"}
    assert {probe.kind for probe in found} < set(KINDS)
    assert not {probe.id for probe in found} & {probe.id for probe in probes(20, seed=2)}


def test_the_command_knows_the_generator() -> None:
    options = parser().parse_args(["start", "--out", "policy"])

    assert "pocket" in options.generators
