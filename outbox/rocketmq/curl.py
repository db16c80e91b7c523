"""The engine on libcurl: many requests in flight from one thread, under the rules of `outbox.rocketmq.transport`.

::

    start ──▶ Transfer (an easy handle) ──▶ multi handle ──events──▶ step ──▶ done(answer)

`CurlLoop` belongs to one thread, which calls `CurlLoop.step` again and again. The relay has such a thread; for whoever
wants to wait for one answer there is `CurlTransport.send`, which has a thread of its own behind it, so that no callback
of libcurl's ever runs in a thread where a signal handler may raise: what is raised in a callback is lost.
"""

import os
import select
import socket
import threading
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Literal

import pycurl
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from outbox.endpoint import checked_endpoint
from outbox.outcomes import Fault
from outbox.rocketmq.connection import tls_context
from outbox.rocketmq.curl_handle import Done, Kept, Place, Transfer
from outbox.rocketmq.frames import without_frames
from outbox.rocketmq.transport import DEFAULT_IDLE_S, HttpAnswer, HttpRequest, NoAnswer

__all__ = ["CurlLoop", "CurlTransport"]

_READ, _WRITE = select.POLLIN, select.POLLOUT
_WANTED = {
    pycurl.POLL_IN: _READ,
    pycurl.POLL_OUT: _WRITE,
    pycurl.POLL_INOUT: _READ | _WRITE,
    pycurl.POLL_NONE: 0,
}


class CurlLoop:
    """Requests in flight, and the connections kept between them. Only `wake` may be called from another thread.

    Args:
        connections: kept at most, whatever places they lead to.
    """

    def __init__(self, connections: int) -> None:
        self._poller = _Poller()
        self._near, self._far = socket.socketpair()
        for end in (self._near, self._far):
            end.setblocking(False)
        self._poller.watch(self._near.fileno(), _READ)
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, connections)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
        self._kept = Kept(connections)
        self._timer_at: float | None = None
        self._under_way: dict[pycurl.Curl, Transfer] = {}
        self._spare: dict[Place, list[Transfer]] = {}

    @property
    def in_flight(self) -> int:
        """Requests started and not done."""
        return len(self._under_way)

    def start(self, place: Place, request: HttpRequest, done: Done) -> None:
        """Have a request sent; `step` will call ``done`` with what came of it."""
        if not self._under_way:
            self._kept.prune(place.idle_s)
        spare = self._spare.setdefault(place, [])
        transfer = spare.pop() if spare else Transfer(place, self._kept)
        transfer.begin(request, done)
        self._under_way[transfer.easy] = transfer
        self._multi.add_handle(transfer.easy)

    def step(self, timeout_s: float | None = None) -> None:
        """Wait until something happens, `wake` is called or ``timeout_s`` has passed, and do what is to be done."""
        if self._is_timer_due():
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
            if self._finish():
                timeout_s = 0.0
        for number, events in self._poller.wait(self._patience_s(timeout_s)):
            if number == self._near.fileno():
                self._drain()
            else:
                self._multi.socket_action(number, _told(events))
        self._finish()

    def wake(self) -> None:
        """Have the `step` that waits, or else the next one, return."""
        # A full pipe wakes as well, and whoever has closed the loop does not wait.
        with suppress(OSError):
            self._far.send(b"\0")

    def close(self) -> None:
        """Close every connection; requests in flight are given up untold."""
        for easy in self._under_way:
            self._multi.remove_handle(easy)
        self._under_way.clear()
        for transfers in self._spare.values():
            for transfer in transfers:
                transfer.easy.close()
        self._spare.clear()
        self._multi.close()
        self._kept.close()
        self._poller.close()
        self._near.close()
        self._far.close()

    def _patience_s(self, timeout_s: float | None) -> float | None:
        left = None if self._timer_at is None else max(0.0, self._timer_at - monotonic())
        return left if timeout_s is None else timeout_s if left is None else min(left, timeout_s)

    def _is_timer_due(self) -> bool:
        if self._timer_at is None or monotonic() < self._timer_at:
            return False
        self._timer_at = None
        return True

    def _finish(self) -> bool:
        """Tell of every request that is over; whether there was any."""
        left, is_any = 1, False
        while left:
            left, whole, broken = self._multi.info_read()
            is_any |= bool(whole or broken)
            for easy in whole:
                self._end(easy, 0, "")
            for easy, failure, text in broken:
                self._end(easy, failure, text)
        return is_any

    def _end(self, easy: pycurl.Curl, failure: int, text: str) -> None:
        transfer = self._under_way[easy]
        self._multi.remove_handle(easy)
        if failure and transfer.begin_afresh():
            self._multi.add_handle(easy)
            return
        del self._under_way[easy]
        done, answer = transfer.done, transfer.end(failure, text)
        self._spare[transfer.place].append(transfer)
        done(answer)

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            while self._near.recv(4096):
                pass

    # --- what libcurl asks

    def _on_socket(self, what: int, number: int, *_: object) -> None:
        if what == pycurl.POLL_REMOVE:
            self._poller.forget(number)
        else:
            self._poller.watch(number, _WANTED[what])

    def _on_timer(self, timeout_ms: int) -> None:
        self._timer_at = None if timeout_ms < 0 else monotonic() + timeout_ms / 1000


class _Poller:
    """What the system tells of sockets: epoll where there is one, else poll."""

    def __init__(self) -> None:
        self._is_epoll = hasattr(select, "epoll")
        self._system: Any = select.epoll() if self._is_epoll else select.poll()
        self._watched: set[int] = set()

    def watch(self, number: int, events: int) -> None:
        if number in self._watched:
            self._system.modify(number, events)
        else:
            self._system.register(number, events)
            self._watched.add(number)

    def forget(self, number: int) -> None:
        self._watched.discard(number)
        try:  # noqa: SIM105 - done for each request, and `suppress` costs as much as the call
            self._system.unregister(number)
        except (OSError, KeyError):
            pass  # closed by now, and forgotten by the system

    def wait(self, timeout_s: float | None) -> list[tuple[int, int]]:
        # One counts in seconds, the other in milliseconds.
        timeout = timeout_s if self._is_epoll or timeout_s is None else timeout_s * 1000
        return list(self._system.poll(timeout))

    def close(self) -> None:
        if self._is_epoll:
            self._system.close()


def _told(events: int) -> int:
    """The system's events in libcurl's words."""
    told = pycurl.CSELECT_IN if events & ~_WRITE else 0
    return told | (pycurl.CSELECT_OUT if events & _WRITE else 0)


class CurlTransport:
    """Requests to one endpoint, by libcurl; see `outbox.rocketmq.transport.Transport`.

    Args:
        endpoint: as `outbox.endpoint.checked_endpoint` returns it.
        pool_size: connections that `send` keeps; as many as threads that call it at the same time.
        idle_s: seconds after which an unused connection is not used again, whole ones.
        verify: True for the certificates that requests trusts, or the path of a file of trusted ones. TLS is always
            verified.

    Raises:
        ConfigError: the endpoint is not one.
        OSError: ``verify`` cannot be read.
    """

    def __init__(
        self, endpoint: str, *, pool_size: int, idle_s: float = DEFAULT_IDLE_S, verify: Literal[True] | str = True
    ) -> None:
        endpoint = checked_endpoint(endpoint, allow_http=True, sts=False)
        ca_bundle = verify if isinstance(verify, str) else DEFAULT_CA_BUNDLE_PATH
        if endpoint.startswith("https:"):
            tls_context(ca_bundle)
        self._place = Place(endpoint, ca_bundle, idle_s)
        self._pool_size = pool_size
        self._lock = threading.Lock()
        self._inherited: list[_Courier | None] = []
        self._courier: _Courier | None = None
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"CurlTransport({self._place.endpoint!r})"

    @without_frames
    def send(self, request: HttpRequest) -> HttpAnswer | NoAnswer:
        """Send one request once, and wait for what comes of it."""
        answer: Future[HttpAnswer | NoAnswer] = Future()
        if request.deadline_s <= 0:
            return self._too_late()
        self._carry(request, answer)
        return answer.result()

    def start(self, loop: CurlLoop, request: HttpRequest, done: Done) -> None:
        """Send one request once, from the thread of ``loop``; ``done`` is called there, perhaps at once."""
        if request.deadline_s <= 0:
            done(self._too_late())
        else:
            loop.start(self._place, request, done)

    def close(self) -> None:
        """Close the connections that `send` keeps; a later one opens new ones."""
        with self._lock:
            courier, self._courier = self._courier, None
        if courier is not None and self._pid == os.getpid():
            courier.dismiss()

    def _too_late(self) -> NoAnswer:
        text = f"{self._place.endpoint}: no time left to connect"
        return NoAnswer(Fault("ConnectTimeout", text, accepted=False))

    def _carry(self, request: HttpRequest, answer: Future[HttpAnswer | NoAnswer]) -> None:
        if self._pid != os.getpid():
            # Kept, not closed: these connections are the parent's, and its lock may have been held at the fork.
            self._lock = threading.Lock()
            self._inherited.append(self._courier)
            self._courier, self._pid = None, os.getpid()
        with self._lock:
            if self._courier is None:
                self._courier = _Courier(self._place, self._pool_size)
            # Under the lock, or one that is being dismissed could be given it.
            self._courier.carry(request, answer)


class _Courier:
    """A thread that carries requests for those who wait for the answer."""

    def __init__(self, place: Place, connections: int) -> None:
        self._loop = CurlLoop(connections)
        self._place = place
        self._given: deque[tuple[HttpRequest, Future[HttpAnswer | NoAnswer]]] = deque()
        self._is_dismissed = False
        self._thread = threading.Thread(target=self._work, name="outbox-courier", daemon=True)
        self._thread.start()

    def carry(self, request: HttpRequest, answer: Future[HttpAnswer | NoAnswer]) -> None:
        """Have a request sent, and its answer put there."""
        self._given.append((request, answer))
        self._loop.wake()

    def dismiss(self) -> None:
        """End after the requests in flight."""
        self._is_dismissed = True
        self._loop.wake()
        self._thread.join()
        self._loop.close()

    def _work(self) -> None:
        while not self._is_dismissed or self._given or self._loop.in_flight:
            while self._given:
                self._start(*self._given.popleft())
            self._loop.step()

    def _start(self, request: HttpRequest, answer: Future[HttpAnswer | NoAnswer]) -> None:
        try:
            self._loop.start(self._place, request, partial(self._deliver, answer))
        except BaseException as error:  # noqa: BLE001 - a defect of ours, raised where the answer is waited for
            answer.set_exception(error)

    @staticmethod
    def _deliver(answer: Future[HttpAnswer | NoAnswer], found: HttpAnswer | NoAnswer) -> None:
        answer.set_result(found)
