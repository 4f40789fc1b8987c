"""The history of Board: totals over replicas since its start, bounded."""

import itertools

from deployments.dashboard.history import COARSE_POINTS, FINE_POINTS, FINE_S, MAX_SERIES, History


def line(value: float, replica: str = "a", name: str = "seen_total") -> bytes:
    return f'{name}{{kind="chat",replica="{replica}"}} {value}'.encode()


def history() -> History:
    return History(kept=lambda text: not text.startswith(b"gauge"))


def growth(kept: History, name: str = 'seen_total{kind="chat"}') -> float:
    return float(sum(kept.view()["series"].get(name, [])))  # type: ignore[attr-defined]


def test_totals_count_from_the_first_text_over_all_replicas() -> None:
    kept = history()
    kept.add([line(10), line(500, "b"), b"gauge 3"], 0)
    kept.add([line(12), line(501, "b"), b"gauge 9"], 10)

    assert kept.view() == {"at": [0, 10], "series": {'seen_total{kind="chat"}': [3]}}


def test_replicas_that_come_go_and_restart_never_decrease_a_total() -> None:
    kept = history()
    kept.add([line(10), line(500, "b")], 0)
    kept.add([line(12)], 2)
    kept.add([line(1), line(503, "b"), line(7, "c")], 4)

    assert growth(kept) == 2 + 1 + 3 + 7


def test_the_last_text_is_always_the_last_point() -> None:
    kept = history()
    for second in (0, 1, 2):
        kept.add([line(second)], second)

    assert kept.view()["at"] == [0, 2]


def test_memory_is_bounded_and_the_start_is_kept() -> None:
    kept = history()
    points = []
    for number in range(4 * (FINE_POINTS + COARSE_POINTS)):
        kept.add([line(number)], number * FINE_S)
        points.append(len(kept.view()["at"]))  # type: ignore[arg-type]
    at = kept.view()["at"]

    assert max(points) <= FINE_POINTS + COARSE_POINTS + 1
    assert at[0] == 0  # type: ignore[index]
    gaps = [b - a for a, b in itertools.pairwise(at)]  # type: ignore[call-overload]
    assert gaps[-FINE_POINTS + 1 :] == [FINE_S] * (FINE_POINTS - 1)
    assert growth(kept) == number


def test_series_beyond_the_bound_are_left_out() -> None:
    kept = history()
    kept.add([], 0)
    kept.add([line(1, name=f"n{number}_total") for number in range(MAX_SERIES + 5)], 10)

    assert len(kept.view()["series"]) == MAX_SERIES  # type: ignore[arg-type]
