"""Strangers without any credential cannot take HTTPS away from the fleet."""

import contextlib
import json
import socket
import ssl

from tests.integration.server.running_server import RunningServer

HELD = 1100


def connect(server: RunningServer, context: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.create_connection(("localhost", server.https_port), timeout=20)
    return context.wrap_socket(plain, server_hostname="localhost")


def test_more_idle_connections_than_are_served(server: RunningServer) -> None:
    context = ssl.create_default_context(cafile=server.ca)
    with contextlib.ExitStack() as stack:
        for _ in range(HELD):
            stack.enter_context(connect(server, context))
        assert server.request("GET", "/health/live").status == 200
        assert server.events("http_connections_exhausted")


def test_a_head_without_end(server: RunningServer) -> None:
    context = ssl.create_default_context(cafile=server.ca)
    line = b"X-A: " + b"a" * 1000 + b"\r\n"
    with connect(server, context) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n" + line * 120)
        answer = connection.recv(4096)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431")
    assert json.loads(body)["code"] == "head_too_large"
