"""A TCP relay that counts what comes back through it, as the bill of a mobile network would."""

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator

_READ_BYTES = 64 * 1024


class CountedWire(socketserver.ThreadingTCPServer):
    """Listens on a free loopback port and relays to another one.

    Attributes:
        received: bytes that came back so far, everything included: TLS, heads, metadata.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int) -> None:
        self.received = 0
        self._to = ("127.0.0.1", port)
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def finish_request(self, request: object, _client_address: object) -> None:
        """Relay one connection until either side ends it."""
        assert isinstance(request, socket.socket)
        with contextlib.suppress(OSError), socket.create_connection(self._to) as beyond:
            up = threading.Thread(target=self._pump, args=(request, beyond), daemon=True)
            up.start()
            self._pump(beyond, request, counted=True)
            up.join()

    def _pump(self, source: socket.socket, sink: socket.socket, *, counted: bool = False) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_READ_BYTES):
                if counted:
                    with self._lock:
                        self.received += len(data)
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def counted(port: int) -> Iterator[CountedWire]:
    """Relay to a port while the block lasts."""
    with CountedWire(port) as wire:
        thread = threading.Thread(target=wire.serve_forever, daemon=True)
        thread.start()
        yield wire
        wire.shutdown()
        thread.join()
