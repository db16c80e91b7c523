"""The emulator on a socket: in a thread of this process (`Emulator`), or as the process itself (`serve`)."""

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

from outbox.emulator.connection import Connection
from outbox.emulator.site import Site
from outbox.emulator.stored import Rules

__all__ = ["Emulator", "serve"]

_T = TypeVar("_T")
_KEYS = {"FAKEAKID": "FAKESECRET"}


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class _Listener:
    """A listening socket; made, used and closed in one event loop."""

    def __init__(self, site: Site, host: str, port: int) -> None:
        self._site = site
        self._host = host
        self._port = port
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        self._stopped.set()

    async def run(self, on_listening: Callable[[str, int], None]) -> None:
        """Serve until `stop`, then close every connection at once, also those of long polls."""
        connections: set[Connection] = set()
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        with socket.create_server((self._host, self._port), family=family) as listening:
            port = listening.getsockname()[1]
            server = await asyncio.get_running_loop().create_server(
                lambda: Connection(self._site, connections), sock=listening
            )
            on_listening(f"http://[{self._host}]:{port}" if ":" in self._host else f"http://{self._host}:{port}", port)
            await self._stopped.wait()
            # A process that was forked meanwhile must not go on listening.
            listening.shutdown(socket.SHUT_RDWR)
            server.close()
            for connection in list(connections):
                connection.abort()
            await server.wait_closed()


class Emulator:
    """The emulator in a daemon thread of this process, for tests and programs that need one for a while.

    Use it as a context manager, or call `start` and `stop`. A stopped emulator may be started again: it listens at the
    same URL and has forgotten nothing, like a broker that was unreachable for a while.

    Args:
        host: where to listen.
        port: 0 for a free one.
        keys: AccessKeyId → AccessKeySecret; without it FAKEAKID and FAKESECRET.
        security_token: the only ``security-token`` to let in; None lets in any, and none.
        strict_topics: topic name → ``normal``, ``ordered``, ``scheduled`` or ``transactional``. Without it topics
            spring into being and take every kind of message.
        rules: how long the broker waits and how often it tries.

    Raises:
        ValueError: for a strict topic of an unknown kind.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        keys: Mapping[str, str] | None = None,
        *,
        security_token: str | None = None,
        strict_topics: Mapping[str, str] | None = None,
        rules: Rules | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._site = Site(_KEYS if keys is None else keys, security_token, strict_topics, rules)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listener: _Listener | None = None
        self._url = ""

    @property
    def url(self) -> str:
        """The endpoint, such as ``http://127.0.0.1:41234``; empty before the first start."""
        return self._url

    def start(self) -> Self:
        """Listen.

        Raises:
            OSError: when the address cannot be listened at.
            RuntimeError: when it is running already.
        """
        if self._thread is not None:
            raise RuntimeError("the emulator is running already")
        listening: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(listening,), name="outbox-emulator", daemon=True)
        self._thread.start()
        try:
            listening.result()
        except BaseException:
            self._thread.join()
            self._thread = None
            raise
        return self

    def _run(self, listening: Future[None]) -> None:
        async def main() -> None:
            self._loop, self._listener = asyncio.get_running_loop(), _Listener(self._site, self._host, self._port)
            await self._listener.run(lambda url, port: self._note(url, port, listening))

        try:
            with asyncio.Runner(loop_factory=_new_loop) as runner:
                runner.run(main())
        except OSError as error:
            listening.set_exception(error)

    def _note(self, url: str, port: int, listening: Future[None]) -> None:
        self._url, self._port = url, port
        listening.set_result(None)

    def stop(self) -> None:
        """Close every connection and stop listening; does nothing when it is not running."""
        if self._thread is not None and self._loop is not None and self._listener is not None:
            self._loop.call_soon_threadsafe(self._listener.stop)
            self._thread.join()
        self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _call(self, function: Callable[[], _T]) -> _T:
        """Call a function where the broker's state lives."""
        if self._thread is None or self._loop is None:
            return function()
        called: Future[_T] = Future()

        def call() -> None:
            try:
                called.set_result(function())
            except Exception as error:  # noqa: BLE001 - raised again in the caller's thread
                called.set_exception(error)
            self._site.waiters.wake_all()

        self._loop.call_soon_threadsafe(call)
        return called.result()

    def ledger(self, after: int = 0, *, bodies: bool = True) -> dict[str, Any]:
        """Return what was accepted: ``{"requests": n, "messages": [{topic, ns, message_id, tag, body, …}]}``.

        Args:
            after: leave out so many messages at the beginning.
            bodies: False leaves out the bodies.
        """
        return self._call(lambda: self._site.control.ledger(after, bodies=bodies))

    def dead_letters(self) -> list[dict[str, Any]]:
        """Return what groups were given too often: entries as in the ledger, and the ``group``."""
        return self._call(self._site.broker.dead_letters)

    def clear_ledger(self) -> None:
        """Forget what was accepted, and count requests from 0 again; topics keep their messages."""
        self._call(self._site.control.forget)

    def begin_anew(self) -> None:
        """Be as at the start: no topics, messages and faults, the first keys, the wall clock's time."""
        self._call(self._site.control.begin_anew)

    def fault(self, name: str, **fields: Any) -> None:
        """Set a fault, such as ``fault("throttle", rate=0.1, topic="orders", seed=7)``.

        Raises:
            FaultError: (a ValueError) for an unknown name or field, or a value that does not fit.
        """
        self._call(lambda: self._site.faults.add({"fault": name, **fields}))

    def clear_faults(self) -> None:
        """Unset every fault."""
        self._call(self._site.faults.clear)

    def change_keys(self, changes: Mapping[str, str | None]) -> None:
        """Let further keys in, AccessKeyId → AccessKeySecret, beside those that are known; None takes one away."""
        self._call(lambda: self._site.authority.change_keys(changes))

    def now(self) -> float:
        """Return the broker's time, epoch seconds."""
        return self._call(self._site.clock.now)

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass at once for everything that the broker keeps."""
        self._call(lambda: self._site.clock.advance(seconds))

    def set_clock(self, epoch: float) -> None:
        """Make it ``epoch`` now, by the broker."""
        self._call(lambda: self._site.clock.set(epoch))


def serve(
    host: str,
    port: int,
    keys: Mapping[str, str],
    *,
    security_token: str | None = None,
    strict_topics: Mapping[str, str] | None = None,
    rules: Rules | None = None,
    on_listening: Callable[[str], None],
) -> None:
    """Be the emulator until SIGINT or SIGTERM, which end it at once, also while clients poll.

    Args:
        host: where to listen.
        port: 0 for a free one.
        keys: AccessKeyId → AccessKeySecret.
        security_token: the only ``security-token`` to let in; None lets in any, and none.
        strict_topics: see `Emulator`.
        rules: see `Emulator`.
        on_listening: called once with the URL, when it takes requests.

    Raises:
        OSError: when the address cannot be listened at.
        ValueError: for a strict topic of an unknown kind.
    """
    site = Site(keys, security_token, strict_topics, rules)

    async def main() -> None:
        listener = _Listener(site, host, port)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, listener.stop)
        await listener.run(lambda url, _port: on_listening(url))

    with asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(main())
