"""A TCP proxy in front of a real server, which loses what a network can lose."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine import URL

HOST = "127.0.0.1"
BLOCK_BYTES = 65536
COMMIT = b"COMMIT\0"


class TcpProxy:
    """Forwards connections to a server; `url` leads through it.

    Each method changes what happens to the connections that exist and to those that follow.
    """

    def __init__(self, target: URL) -> None:
        self._address = _server_address(target)
        self._listener = socket.create_server((HOST, 0))
        self._sockets: set[socket.socket] = set()
        self._forwarding = threading.Event()
        self._forwarding.set()
        self._lost: tuple[bytes, bool] | None = None
        self._is_refusing = False
        self.answer_lost = threading.Event()
        self.url = target.difference_update_query(["host", "port"]).set(host=HOST, port=self._listener.getsockname()[1])
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def lose_answer(self, statement: bytes = COMMIT, *, then_refuse: bool = False) -> None:
        """Close the connection instead of forwarding the answer to the next `statement`, which the server has executed.

        `statement` is what ends a message of the protocol, at least as long as `COMMIT` and its zero byte. `answer_lost` is set
        afterwards. With `then_refuse`, no later connection is accepted.
        """
        self.answer_lost.clear()
        self._lost = (statement, then_refuse)

    def silence(self) -> None:
        """Forward nothing more in either direction, and keep all connections open."""
        self._forwarding.clear()

    def resume(self) -> None:
        """Forward and accept again, what was held back first."""
        self._is_refusing = False
        self._forwarding.set()

    def refuse(self) -> None:
        """Close every new connection at once."""
        self._is_refusing = True

    def cut(self) -> None:
        """Close every connection."""
        for end in list(self._sockets):
            _shut_down(end)

    def close(self) -> None:
        """Close the proxy and every connection."""
        _shut_down(self._listener)
        self._listener.close()
        self.resume()
        self.cut()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = None if self._is_refusing else self._connect_to_server()
                if server is None:
                    client.close()
                    continue
                self._sockets |= {client, server}
                losing = threading.Event()
                for forward, source, sink in (
                    (self._forward_requests, client, server),
                    (self._forward_answers, server, client),
                ):
                    self._start(partial(self._forward, partial(forward, source, sink, losing), source, sink))

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _forward(self, forward: Callable[[], None], source: socket.socket, sink: socket.socket) -> None:
        """Forward from `source` until one side ends, then end the other."""
        with suppress(OSError):
            forward()
        _shut_down(sink)
        _shut_down(source)
        self._sockets.discard(source)
        source.close()

    def _connect_to_server(self) -> socket.socket | None:
        server = socket.socket(socket.AF_UNIX if isinstance(self._address, str) else socket.AF_INET)
        try:
            server.connect(self._address)
        except OSError:
            server.close()
            return None
        return server

    def _forward_requests(self, client: socket.socket, server: socket.socket, losing: threading.Event) -> None:
        tail = b""
        for block in self._blocks(client):
            tail += block
            if self._lost is not None and self._lost[0] in tail:
                losing.set()
            # Shorter than any statement, because an earlier one must not be found again.
            tail = tail[1 - len(COMMIT) :]
            server.sendall(block)

    def _forward_answers(self, server: socket.socket, client: socket.socket, losing: threading.Event) -> None:
        for block in self._blocks(server):
            if losing.is_set() and self._lost is not None:
                self._is_refusing = self._lost[1]
                self._lost = None
                self.answer_lost.set()
                break
            client.sendall(block)

    def _blocks(self, source: socket.socket) -> Iterator[bytes]:
        while block := source.recv(BLOCK_BYTES):
            self._forwarding.wait()
            yield block


def _server_address(url: URL) -> str | tuple[str, int]:
    """Return the path of the server's socket, or its host and port."""
    host = str(url.host or url.query["host"])
    port = int(url.port or str(url.query.get("port", 5432)))
    return f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)


def _shut_down(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


@contextmanager
def tcp_proxy(target: URL) -> Iterator[TcpProxy]:
    """Run a proxy in front of the server of `target` during the block."""
    proxy = TcpProxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
