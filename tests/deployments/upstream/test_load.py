"""What a request would take now: learnt from responses, and the load that replicas report."""

import pytest

from deployments.contracts.messages import ReplicaLoad
from deployments.upstream.load import ASSUMED_START_S, HALF_LIFE_S, LoadEstimate, Present, loads_now
from deployments.upstream.online_line import OnlineLine

SLOTS = 4


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def learned(clock: Clock) -> LoadEstimate:
    """0.1 s and 1 ms a prompt token; a token of the answer takes 10 ms, and 1 ms for each in flight."""
    load = LoadEstimate(clock)
    for number in range(60):
        prompt, in_flight = 100 + 300 * (number % 5), 1 + number % SLOTS
        begun = load.begun(prompt, in_flight, SLOTS)
        first_s = 0.1 + 0.001 * prompt
        load.first_byte(begun, first_s)
        load.ended(begun, first_s + 50 * (0.01 + 0.001 * in_flight), 51, first_s)
    return load


def test_a_line_is_found_and_a_stall_does_not_turn_it() -> None:
    line = OnlineLine(10.0)
    for number in range(40):
        line.observe(1.0 + 0.5 * (number % 7), (float(number % 7),))
    line.observe(500.0, (3.0,))

    assert line.coefficients == pytest.approx((1.0, 0.5), abs=0.05)
    assert line.at(2.0) == pytest.approx(2.0, abs=0.1)


def test_nothing_is_known_before_responses_were_seen(clock: Clock) -> None:
    assert LoadEstimate(clock).now(0, SLOTS) is None


def test_speeds_are_learnt_from_responses(clock: Clock) -> None:
    now = learned(clock).now(0, SLOTS, cached_tokens=7)

    assert now is not None
    assert now.prefill_s_per_token == pytest.approx(0.001, rel=0.15)
    assert now.s_per_output_token == pytest.approx(0.011, rel=0.15)
    assert now.wait_s == pytest.approx(0.1, rel=0.3)
    assert now.cached_tokens == 7
    assert now.free_slots == SLOTS - 1


def test_a_request_behind_full_slots_waits_its_turn(clock: Clock) -> None:
    load = learned(clock)
    free, full = load.now(0, SLOTS), load.now(2 * SLOTS, SLOTS)

    assert free is not None
    assert full is not None
    assert full.free_slots == free.queued_s == 0
    assert full.queued_s == pytest.approx((SLOTS + 1) * free.added_wait_s, rel=0.1)
    assert full.wait_s == pytest.approx(free.wait_s + (SLOTS + 1) * free.added_wait_s, rel=0.1)
    assert full.s_per_output_token > free.s_per_output_token


def test_the_load_of_others_is_reported_and_fades(clock: Clock) -> None:
    load = learned(clock)
    load.reported(ReplicaLoad(4, 6), in_flight=2, replicas=1)
    assert load.others() == 8
    loaded = load.now(2, 100)
    clock.now += 20 * HALF_LIFE_S
    idle = load.now(0, 100)

    assert loaded is not None
    assert idle is not None
    assert loaded.wait_s > idle.wait_s + 6 * loaded.added_wait_s
    assert load.others() < 0.01


def test_small_changes_of_a_speed_do_not_take_effect(clock: Clock) -> None:
    load = learned(clock)
    before = load.now(0, SLOTS)
    begun = load.begun(400, 1, SLOTS)
    load.ended(begun, 0.5 + 50 * 0.0112, 51, 0.5)
    after = load.now(0, SLOTS)

    assert before is not None
    assert after is not None
    assert (after.wait_s, after.s_per_output_token) == (before.wait_s, before.s_per_output_token)


def test_an_expert_at_zero_costs_its_measured_start(clock: Clock) -> None:
    load = LoadEstimate(clock)
    assert load.start_s() == ASSUMED_START_S
    load.started(20.0)
    load.begins_to_start()
    clock.now += 15.0
    now = load.now(0, SLOTS, cold=True)

    assert now is not None
    assert now.wait_s == 5.0
    clock.now += 100.0
    assert load.start_s() == 5.0  # late already: never less than a quarter


def test_an_unknown_expert_counts_as_idle_and_as_fast_as_others(clock: Clock) -> None:
    known, new = learned(clock), LoadEstimate(clock)
    loads = loads_now({"known": Present(known, 9, SLOTS), "new": Present(new, 0, SLOTS, cached_tokens=5)})
    idle = known.now(0, SLOTS)

    assert idle is not None
    assert loads["new"].wait_s == idle.wait_s < loads["known"].wait_s
    assert loads["new"].cached_tokens == 5
    assert loads_now({"new": Present(new, 0, SLOTS)}) == {}
