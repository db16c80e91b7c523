"""The publisher that keeps many requests in flight from one thread.

::

    board ──task──▶ start ──▶ loop ──outcome──▶ board
             │        ▲
             ▼        │
            readers ──┘   bodies, and what else the database must be asked

Nothing here waits but for the loop: a thread that waited for the database would let the deadlines of all requests in
flight run out, although their answers have come.
"""

from collections import deque
from collections.abc import Mapping
from functools import partial

from outbox.clock import Clock
from outbox.outcomes import EndOutcome, Outcome
from outbox.relay.board import Board
from outbox.relay.chains import Assignment
from outbox.relay.halves import HalfEnd
from outbox.relay.publishing import Desk, Prepared, Spawn, StartingPublisher, broken, is_too_late
from outbox.rocketmq.transport import Loop, Loops

__all__ = ["LoopPublisher"]

# As many as the database's pool has connections to spare.
_READERS = 4


class LoopPublisher:
    """One thread for all requests, and a few that read for it.

    Args:
        board: where rows come from and outcomes go.
        desk: what prepares rows.
        publishers: by name of destination; they start requests on the loop.
        clock: time.
        spawn: starts a thread of the relay's.
        concurrency: requests in flight at most.
        loops: where its loop is from.
    """

    def __init__(
        self,
        board: Board,
        desk: Desk,
        publishers: Mapping[str, StartingPublisher],
        *,
        clock: Clock,
        spawn: Spawn,
        concurrency: int,
        loops: Loops,
    ) -> None:
        self._board = board
        self._desk = desk
        self._publishers = publishers
        self._clock = clock
        self._spawn = spawn
        self._concurrency = concurrency
        self._loops = loops
        self._loop: Loop | None = None
        self._in_flight = 0
        self._readers = 0
        self._unread: deque[Assignment] = deque()
        self._something_to_read = clock.condition(clock.lock())
        self._is_over = False
        self._read: deque[tuple[Assignment, Prepared | Outcome | None]] = deque()

    def staff(self, busy: int) -> None:
        """Have the thread, once there is anything to do."""
        if busy and self._loop is None:
            loop = self._loop = self._loops.take(self._concurrency)
            self._board.call_by(loop.wake)
            self._spawn("outbox-publisher", partial(self._publish_all, loop))

    def _publish_all(self, loop: Loop) -> None:
        try:
            while self._in_flight or not self._board.is_over():
                self._start_what_there_is(loop)
                loop.step()
        except BaseException:
            self._board.call_by(None)
            # Broken, it is of no use to the next relay.
            loop.close()
            raise
        else:
            self._board.call_by(None)
            self._loops.give_back(loop)
        finally:
            with self._something_to_read:
                self._is_over = True
                self._something_to_read.notify_all()

    def _start_what_there_is(self, loop: Loop) -> None:
        while self._read:
            self._post(loop, *self._read.popleft())
        while self._in_flight < self._concurrency and (task := self._board.take_now()) is not None:
            self._in_flight += 1
            match task:
                case Assignment() if self._desk.is_waiting_needed(task.row):
                    self._have_read(loop, task)
                case Assignment():
                    self._post(loop, task, self._desk.prepare(task.row))
                case HalfEnd():
                    self._end(loop, task)

    # --- one row

    def _post(self, loop: Loop, task: Assignment, prepared: Prepared | Outcome | None) -> None:
        row, posted_at = task.row, self._clock.monotonic()
        if not isinstance(prepared, Prepared):
            self._done(task, posted_at, prepared)
            return
        done = partial(self._done, task, posted_at)
        publisher, message = self._publishers[row.destination], (row.topic, prepared.body, row.tag, row.properties)
        deadline_s, origin = prepared.deadline_s, prepared.origin
        try:
            if origin is None:
                outcome = publisher.start_publish(loop, *message, deadline_s=deadline_s, done=done)
            else:
                outcome = publisher.start_half(
                    loop, *message, replay=row.replays, origin=origin, deadline_s=deadline_s, done=done
                )
        except Exception as error:  # noqa: BLE001 - a defect of ours must cost this row an attempt, not more
            outcome = broken(error, row)
        if outcome is not None:
            done(outcome)

    def _done(self, task: Assignment, posted_at: float, outcome: Outcome | None) -> None:
        self._in_flight -= 1
        self._board.done(task, outcome, posted_at)

    # --- one end of a half message

    def _end(self, loop: Loop, end: HalfEnd) -> None:
        row, handle = end.half.row, end.half.receipt_handle
        if handle is None or is_too_late(end, self._clock.monotonic()):
            self._ended(end, None)
            return
        deadline_s, done = end.deadline_s(self._desk.request_deadline_s), partial(self._ended, end)
        try:
            publisher = self._publishers[row.destination]
            outcome = publisher.start_end(loop, row.topic, handle, end.how, deadline_s=deadline_s, done=done)
        except Exception as error:  # noqa: BLE001 - as for a row; nothing is sent a second time
            outcome = broken(error, row)
        if outcome is not None:
            done(outcome)

    def _ended(self, end: HalfEnd, outcome: EndOutcome | None) -> None:
        self._in_flight -= 1
        self._board.ended(end, outcome)

    # --- reading

    def _have_read(self, loop: Loop, task: Assignment) -> None:
        with self._something_to_read:
            self._unread.append(task)
            self._something_to_read.notify()
        if self._readers < _READERS:
            self._spawn(f"outbox-reader-{self._readers}", partial(self._read_all, loop))
            self._readers += 1

    def _read_all(self, loop: Loop) -> None:
        while (task := self._next_to_read()) is not None:
            self._read.append((task, self._desk.prepare(task.row)))
            loop.wake()

    def _next_to_read(self) -> Assignment | None:
        with self._something_to_read:
            while not self._unread and not self._is_over:
                self._something_to_read.wait()
            return self._unread.popleft() if self._unread else None
