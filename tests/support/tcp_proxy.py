"""A TCP proxy in front of a real server, which loses what a network can lose."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine import URL

HOST = "127.0.0.1"
BLOCK_BYTES = 65536
COMMIT = b"COMMIT\0"
# Longer than any statement that a test waits for.
TAIL_BYTES = 1024


class Loss(NamedTuple):
    """The message of a client that is lost, or whose answer is."""

    statement: bytes
    after: bytes
    is_delivered: bool = True
    then_refuse: bool = False


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
        self._loss: Loss | None = None
        self._is_refusing = False
        self.lost = threading.Event()
        self._mark: re.Pattern[bytes] | None = None
        self._released = threading.Event()
        self.held = threading.Event()
        self.url = target.difference_update_query(["host", "port"]).set(host=HOST, port=self._listener.getsockname()[1])
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def lose_answer(self, statement: bytes = COMMIT, *, after: bytes = b"", then_refuse: bool = False) -> None:
        """Close the connection instead of forwarding the answer to the next `statement`, which the server has executed.

        `statement` is what ends a message of the protocol, with its zero byte; only one on a connection that has sent
        `after` counts. `lost` is set afterwards. With `then_refuse`, no later connection is accepted.
        """
        self.lost.clear()
        self._loss = Loss(statement, after, then_refuse=then_refuse)

    def lose_request(self, statement: bytes = COMMIT, *, after: bytes = b"") -> None:
        """Close the connection instead of forwarding the next `statement`; see `lose_answer`."""
        self.lost.clear()
        self._loss = Loss(statement, after, is_delivered=False)

    def hold(self, statement: bytes) -> None:
        """Hold back the next statement that the pattern `statement` finds, and set `held` when it arrives."""
        self._released.clear()
        self._mark = re.compile(statement)

    def release(self) -> None:
        """Forward the statement that was held back."""
        self._released.set()

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
        self.release()
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
                lost: list[Loss] = []
                for forward, source, sink in (
                    (self._forward_requests, client, server),
                    (self._forward_answers, server, client),
                ):
                    self._start(partial(self._forward, partial(forward, source, sink, lost), source, sink))

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

    def _forward_requests(self, client: socket.socket, server: socket.socket, lost: list[Loss]) -> None:
        sent, is_after = b"", False
        for block in self._blocks(client):
            if self._mark is not None and self._mark.search(block):
                self._mark = None
                self.held.set()
                self._released.wait()
            if self._loss is None:
                sent, is_after = b"", False
            else:
                sent += block
                if not is_after and (position := sent.find(self._loss.after)) >= 0:
                    sent, is_after = sent[position + len(self._loss.after) :], True
                if is_after and self._loss.statement in sent:
                    lost.append(self._loss)
                    self._loss = None
                    if not lost[0].is_delivered:
                        self._end(lost[0])
                        break
                sent = sent[-TAIL_BYTES:]
            server.sendall(block)

    def _forward_answers(self, server: socket.socket, client: socket.socket, lost: list[Loss]) -> None:
        for block in self._blocks(server):
            if lost:
                self._end(lost[0])
                break
            client.sendall(block)

    def _end(self, loss: Loss) -> None:
        self._is_refusing = loss.then_refuse
        self.lost.set()

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
