"""Processor time by part of the graph, for the processes that ran all the time."""

import os
import subprocess
import sys

from load_tests.processors import by_part, difference


def test_used_time_is_added_by_part_and_newcomers_are_left_out() -> None:
    before = {1: ("ingress", 1.0), 2: ("engine core", 5.0), 3: ("engine core", 7.0)}
    after = {1: ("ingress", 1.5), 3: ("engine core", 7.25), 4: ("router", 9.0)}

    assert difference(before, after) == {"ingress": 0.5, "engine core": 0.25}


def test_a_process_is_known_by_its_title_and_its_time_is_read() -> None:
    busy = "import sys\nwhile sum(range(10**5)): sys.stdout.write('.'); sys.stdout.flush()"
    title = "ray::ServeReplica:to-router:Ingress"
    with subprocess.Popen([title, "-c", busy], executable=sys.executable, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(50)
        parts = by_part()
        process.kill()

    part, seconds = parts[process.pid]
    assert part == "ingress"
    assert 0 < seconds < 60
    assert os.getpid() not in parts
