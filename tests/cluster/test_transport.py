"""The one file with the environment of the fast transport."""

from cluster.transport import transport_flags


def test_the_fast_transport_is_read_from_its_one_file() -> None:
    flags = transport_flags()

    assert flags["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert not [name for name in flags if name.startswith("#")]
