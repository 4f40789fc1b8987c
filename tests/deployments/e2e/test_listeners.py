"""Which ports the local graph opens: on loopback, or gRPC that requires the token."""

import ipaddress

import grpc
import psutil
import pytest

from tests.deployments.e2e.conftest import Graph

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

HANDLE_REQUEST = "/ray.serve.ASGIService/HandleRequest"
"""Of `ray.serve`'s gRPC between replicas."""


def off_loopback(graph: Graph) -> dict[int, str]:
    """Ports of the graph that other machines reach, and the titles of the processes."""
    ports = {}
    for process in graph.processes(""):
        try:
            listeners = [c for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
            title = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        for listener in listeners:
            address = ipaddress.ip_address(listener.laddr.ip)
            mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
            if not (mapped or address).is_loopback:
                ports[listener.laddr.port] = title
    return ports


def test_only_grpc_of_replicas_listens_off_loopback(graph: Graph) -> None:
    titles = set(off_loopback(graph).values())

    assert titles
    assert [title for title in titles if not title.startswith("ray::ServeReplica")] == []


def test_grpc_of_replicas_rejects_a_call_without_the_token(graph: Graph) -> None:
    codes = set()
    for port in off_loopback(graph):
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError) as error:
            channel.unary_unary(HANDLE_REQUEST)(b"", timeout=10)
        codes.add(error.value.code())

    assert codes == {grpc.StatusCode.UNAUTHENTICATED}
