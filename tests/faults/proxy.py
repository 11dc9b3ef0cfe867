"""A TCP proxy in front of PostgreSQL's socket that can fall silent, as a network does, or swallow one answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy.engine import make_url

CHUNK = 65536
WAIT = 0.1  # seconds between two looks at whether the proxy was closed


class Proxy:
    """Listens on loopback and passes bytes on to a unix socket.

    While it is silent nothing is refused and nothing is closed: what was sent arrives once the silence is over, as
    with a network that comes back.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._flowing, self._closed = threading.Event(), threading.Event()
        self._flowing.set()
        self._lost_after: bytes | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(WAIT)  # here: by the time a thread looks, the proxy may be closed again
        self.port: int = self._listener.getsockname()[1]
        self._beside(self._accept)

    @contextmanager
    def silent(self) -> Iterator[None]:
        self.fall_silent()
        try:
            yield
        finally:
            self.speak()

    def fall_silent(self) -> None:
        self._flowing.clear()

    def speak(self) -> None:
        self._flowing.set()

    def lose_the_answer_to(self, request: bytes) -> None:
        """The next time these bytes are sent they arrive, and instead of an answer the connection ends."""
        self._lost_after = request

    def close(self) -> None:
        self._closed.set()
        self._flowing.set()
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            with suppress(TimeoutError, OSError):
                client, _ = self._listener.accept()
                self._beside(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        self._wait_for_flow()
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(str(self._target))
        except OSError:  # PostgreSQL is down: so is the connection
            client.close()
            server.close()
            return
        losing = threading.Event()
        self._beside(self._pass_on, client, server, losing, True)
        self._pass_on(server, client, losing, False)

    def _pass_on(self, source: socket.socket, sink: socket.socket, losing: threading.Event, request: bool) -> None:
        with suppress(OSError), source, sink:
            while data := source.recv(CHUNK):
                self._wait_for_flow()
                if request and self._lost_after is not None and self._lost_after in data:
                    self._lost_after = None
                    losing.set()
                if losing.is_set() and not request:
                    break
                sink.sendall(data)
            for one in (source, sink):  # wakes the other direction
                one.shutdown(socket.SHUT_RDWR)

    def _wait_for_flow(self) -> None:
        while not self._flowing.wait(WAIT):
            if self._closed.is_set():
                return

    @staticmethod
    def _beside(run: object, *arguments: object) -> None:
        threading.Thread(target=run, args=arguments, name="proxy", daemon=True).start()  # type: ignore[arg-type]


@contextmanager
def in_front_of(database_url: str) -> Iterator[tuple[Proxy, str]]:
    """A proxy, and the URL of the database behind it."""
    url = make_url(database_url)
    folder = url.query["host"]
    assert isinstance(folder, str)
    proxy = Proxy(Path(folder) / ".s.PGSQL.5432")
    try:
        through = url.difference_update_query(["host"]).set(host="127.0.0.1", port=proxy.port)
        yield proxy, through.render_as_string(hide_password=False)
    finally:
        proxy.close()
