"""What the relay knows between its stages: rows to publish, rows in flight, and what to tell the database."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from outbox.clock import Clock
from outbox.outcomes import Ended, EndOutcome, Outcome, Paused, Refused, Retry, Sent
from outbox.relay.chains import Assignment, Chain, in_chains
from outbox.relay.findings import Findings, LanePause, mark_of
from outbox.relay.halves import HalfEnd, InHand, endings
from outbox.relay.watch import LaneWatch
from outbox.retry import Done, Policy
from outbox.store.claim import ClaimedRow
from outbox.store.halves import Standing
from outbox.store.lanes import AutomaticPause, Lane
from outbox.store.mark import Mark, Release

__all__ = ["Board"]

MARKS_AT_ONCE = 500
MARK_WITHIN_S = 0.05


class Board:
    """The relay's state in memory. Every method may be called from any thread.

    Args:
        clock: time and locks.
        policy: limits and waits of retries.
        room: rows that may wait here before the claimer is told to stop, at least 1.
        bytes_in_flight: sum of the bodies being published at once; a larger body goes alone.
    """

    def __init__(self, clock: Clock, policy: Policy, *, room: int, bytes_in_flight: int) -> None:
        self._clock = clock
        self._room = room
        self._budget = bytes_in_flight
        lock = clock.lock()
        self._lock = lock
        self._work = clock.condition(lock)
        self._news = clock.condition(lock)
        self._found = clock.condition(lock)
        self._ready: deque[Chain] = deque()
        self._ends: deque[HalfEnd] = deque()
        self._unended = 0
        self._waiting_rows = 0
        self._in_flight = 0
        self._bytes = 0
        self._idle_publishers = 0
        self._call: Callable[[], None] = _nobody
        self._findings = Findings()
        self._found_at = 0.0
        self._flushing = False
        self._lanes = LaneWatch(policy, clock.uniform)
        self._alone = False
        self._woken = False
        self._closed = False

    @property
    def pauses(self) -> int:
        """To tell a look at the database from a later one; see `outbox.relay.watch.LaneWatch`."""
        return self._lanes.pauses

    # --- the claimer's side ---

    def offer(
        self,
        lane: Lane,
        rows: Sequence[ClaimedRow],
        start_before: float,
        probe: AutomaticPause | None,
        seen: int | None = None,
    ) -> int:
        """Take claimed rows; returns how many publishers could be busy now.

        ``seen`` is what `pauses` was when the claimer last looked for lanes; what it is now, if not given.
        """
        with self._lock:
            seen = self.pauses if seen is None else seen
            if self._closed or self._lanes.is_stale(lane, seen):
                self._give_back(rows)
                return 0
            self._ready.extend(Chain(lane, chain, start_before, probe, seen) for chain in in_chains(rows))
            self._alone = any(row.alone for row in rows)
            self._count_waiting(len(rows))
            self._call_publishers(min(len(self._ready), self._idle_publishers))
            return self._in_flight + len(self._ready)

    def give_back(self, rows: Sequence[ClaimedRow]) -> None:
        """Release rows that were claimed for nothing."""
        with self._lock:
            self._give_back(rows)

    def is_stale(self, lane: Lane, seen: int) -> bool:
        """Whether the lane has paused since the look that ``seen`` is of."""
        with self._lock:
            return self._lanes.is_stale(lane, seen)

    def wait_for_room(self, timeout: float) -> bool:
        """Wait until there is room for rows, and none here that must be alone; False after ``timeout`` seconds."""
        until = self._clock.monotonic() + timeout
        with self._lock:
            while self._crowded() and not self._closed and (left := until - self._clock.monotonic()) > 0:
                self._news.wait(left)
            return not self._crowded()

    def rest(self, timeout: float, *, until_empty: bool) -> None:
        """Wait until woken, or until every row is marked if that is asked for, at most ``timeout`` seconds."""
        until = self._clock.monotonic() + timeout
        with self._lock:
            while not self._woken and not (until_empty and self._is_empty()):
                if (left := until - self._clock.monotonic()) <= 0:
                    break
                self._news.wait(left)
            self._woken = False

    def wake(self) -> None:
        """Have a resting claimer look again now."""
        with self._lock:
            self._woken = True
            self._news.notify_all()

    def empty(self) -> bool:
        """Whether every row ever offered has been marked."""
        with self._lock:
            return self._is_empty()

    def close(self) -> None:
        """Give back what no publisher has taken; publishers end after the row they hold, the marker after the last."""
        with self._lock:
            self._closed = self._woken = True
            while self._ready:
                self._give_back_chain(self._ready.popleft())
            for condition in (self._work, self._news, self._found):
                condition.notify_all()
            self._call()

    # --- the publishers' side ---

    def take(self) -> Assignment | HalfEnd | None:
        """Wait for a half message to end, or else a row to publish; None when the board is closed and all are ended."""
        with self._lock:
            while not self._is_over():
                task = self._next_task()
                if task:
                    self._call_publisher()
                    return task
                self._idle_publishers += 1
                self._work.wait()
                self._idle_publishers -= 1
            return None

    def call_by(self, call: Callable[[], None] | None) -> None:
        """Have a publisher that does not wait here, but takes by `take_now`, called when there may be something.

        None once it has left: it is not called any more when this returns.
        """
        with self._lock:
            self._call = call or _nobody

    def take_now(self) -> Assignment | HalfEnd | None:
        """As `take`, without waiting: None when there is nothing now, of which the publisher will be called."""
        with self._lock:
            task = self._next_task()
            self._idle_publishers = 0 if task else 1
            return task

    def is_over(self) -> bool:
        """Whether nothing will be there to take any more."""
        with self._lock:
            return self._is_over()

    def done(self, assignment: Assignment, outcome: Outcome | None, posted_at: float = 0.0) -> None:
        """Report what came of the row; None when its lease was lost before the publish started.

        ``posted_at`` is the monotonic time from before a half message's POST.
        """
        chain, row = assignment.chain, assignment.row
        with self._lock:
            self._in_flight -= 1
            self._bytes -= row.body_bytes
            if row.alone:
                self._alone = False
                self._news.notify_all()
            if outcome is None:
                self._give_back_chain(chain)
            elif row.transaction_check_s is not None:
                self._settle_half(chain, row, outcome, posted_at)
            else:
                self._settle(chain, row, outcome)
            self._call_publisher()
            if self._is_quiet():
                self._found.notify_all()

    def ended(self, end: HalfEnd, outcome: EndOutcome | None) -> None:
        """Report what came of a commit or a rollback; None when it was too late to send it."""
        with self._lock:
            self._in_flight -= 1
            self._has_ended(1)
            if end.how == "commit":
                self._note_finding()
                if isinstance(outcome, Ended):
                    self._findings.committed.append(end.half.committed())
                else:
                    self._findings.unsettled += 1
                chain = end.half.chain
                if isinstance(outcome, Paused) and not self._lanes.is_stale(chain.lane, chain.seen):
                    self._rest(self._lanes.pause(chain, outcome.fault, outcome))
            if self._is_quiet() or self._findings.size >= MARKS_AT_ONCE:
                self._found.notify_all()

    # --- the marker's side ---

    def findings(self) -> Findings | None:
        """Wait for something to tell the database; None when the board is closed and all is told.

        That is: 500 marks, or 50 ms after the first, or at once for a pause or when nothing can be published meanwhile.
        """
        with self._lock:
            while not self._due():
                if self._closed and not self._in_flight and not self._unended and not self._findings:
                    return None
                first = self._found_at + MARK_WITHIN_S - self._clock.monotonic()
                self._found.wait(max(first, 0.0) if self._findings else None)
            findings, self._findings = self._findings, Findings()
            self._flushing = True
            return findings

    def elected(self, halves: Sequence[InHand], standings: Mapping[str, Standing]) -> None:
        """The database has decided: have publishers end what can be ended. What it did not decide is left alone."""
        now = self._clock.monotonic()
        with self._lock:
            ends = endings(halves, standings, now)
            self._ends.extend(ends)
            self._call_publishers(min(len(ends), self._idle_publishers))
            left = len(halves) - len(ends)
            if left:
                self._note_finding()
                self._findings.unsettled += left
                self._has_ended(left)

    def told(self, findings: Findings) -> None:
        """The database knows ``findings`` now."""
        with self._lock:
            self._flushing = False
            self._lanes.told(findings.pauses)
            self._call_publisher()
            # The next rows of these keys or lanes can be claimed now.
            self._woken |= findings.ordered or bool(findings.ended)
            self._news.notify_all()

    # --- under the lock ---

    def _is_over(self) -> bool:
        return self._closed and not self._unended

    def _next_task(self) -> Assignment | HalfEnd | None:
        if not self._ends:
            return self._next()
        self._in_flight += 1
        return self._ends.popleft()

    def _next(self) -> Assignment | None:
        while self._ready:
            chain = self._ready[0]
            if self._clock.monotonic() > chain.start_before:
                self._give_back_chain(self._ready.popleft())
                continue
            row = chain.rows[0]
            if not self._may_start(row):
                return None
            self._ready.popleft()
            chain.rows.popleft()
            self._count_waiting(-1)
            self._in_flight += 1
            self._bytes += row.body_bytes
            return Assignment(chain, row)
        return None

    def _call_publisher(self) -> None:
        if (self._ready or self._ends) and self._idle_publishers:
            self._call_publishers(1)

    def _call_publishers(self, many: int) -> None:
        if many:
            self._work.notify(many)
            self._call()

    def _may_start(self, row: ClaimedRow) -> bool:
        if row.alone:
            # It may end this process: first the database must know of every other row that was held here.
            return not self._in_flight and not self._findings and not self._flushing
        return not self._in_flight or self._bytes + row.body_bytes <= self._budget

    def _count_waiting(self, rows: int) -> None:
        crowded = self._crowded()
        self._waiting_rows += rows
        if crowded and not self._crowded():
            self._news.notify_all()

    def _settle(self, chain: Chain, row: ClaimedRow, outcome: Outcome) -> None:
        verdict = self._lanes.verdict(chain, row, outcome)
        self._find(mark_of(row, verdict))
        self._findings.ordered |= row.ordering_key is not None
        if isinstance(verdict, Done):
            self._lanes.succeeded(chain.lane)
            self._go_on(chain)
            return
        self._give_back_chain(chain)
        pause = self._lanes.failed(chain, verdict.fault, outcome)
        if pause:
            self._rest(pause)

    def _settle_half(self, chain: Chain, row: ClaimedRow, outcome: Outcome, posted_at: float) -> None:
        """Put a half message that was taken to the vote; roll back one that was taken altered, and try again."""
        match outcome:
            case Sent(message_id=message_id, receipt_handle=handle):
                self._lanes.succeeded(chain.lane)
                self._unended += 1
                self._note_finding()
                self._findings.elections.append(InHand(chain, row, message_id, posted_at, handle))
                if self._findings.size >= MARKS_AT_ONCE:
                    self._found.notify_all()
                self._go_on(chain)
            case Refused(fault=fault, receipt_handle=handle) if fault.accepted:
                if handle is not None:
                    self._unended += 1
                    self._ends.append(HalfEnd(InHand(chain, row, "", posted_at, handle), "rollback"))
                self._settle(chain, row, Retry(fault))
            case _:
                self._settle(chain, row, outcome)

    def _has_ended(self, halves: int) -> None:
        self._unended -= halves
        if not self._unended:
            for condition in (self._work, self._found, self._news):
                condition.notify_all()
            self._call()

    def _go_on(self, chain: Chain) -> None:
        if chain.probe:
            self._findings.ended.append(chain.lane)
            chain.probe = None
        if self._closed or self._lanes.is_stale(chain.lane, chain.seen):
            self._give_back_chain(chain)
        elif chain.rows:
            self._ready.appendleft(chain)

    def _rest(self, pause: LanePause) -> None:
        """Publish nothing more of the lane."""
        self._findings.pauses.append(pause)
        ready, self._ready = self._ready, deque()
        for chain in ready:
            if chain.lane == pause.lane:
                self._give_back_chain(chain)
            else:
                self._ready.append(chain)

    def _give_back_chain(self, chain: Chain) -> None:
        self._give_back(chain.rows)
        self._count_waiting(-len(chain.rows))
        chain.rows.clear()

    def _give_back(self, rows: Iterable[ClaimedRow]) -> None:
        for row in rows:
            self._alone &= not row.alone
            self._find(Release(row.id, row.lease_token))

    def _find(self, mark: Mark) -> None:
        self._note_finding()
        self._findings.marks.append(mark)
        if len(self._findings.marks) == MARKS_AT_ONCE:
            self._found.notify_all()

    def _note_finding(self) -> None:
        """The marker waits no longer than 50 ms from the first finding."""
        if not self._findings:
            self._found_at = self._clock.monotonic()
            self._found.notify_all()

    def _due(self) -> bool:
        if not self._findings:
            return False
        if self._findings.size >= MARKS_AT_ONCE or self._findings.pauses or self._is_quiet():
            return True
        return self._clock.monotonic() >= self._found_at + MARK_WITHIN_S

    def _crowded(self) -> bool:
        full = (
            self._waiting_rows + self._unended >= self._room or len(self._findings.marks) >= self._room + MARKS_AT_ONCE
        )
        return full or self._alone

    def _is_quiet(self) -> bool:
        """Whether nothing can be published before the findings are told; a row that must be alone waits for that."""
        if self._ends or self._in_flight:
            return False
        return not self._ready or self._ready[0].rows[0].alone

    def _is_empty(self) -> bool:
        idle = not self._in_flight and not self._unended and not self._ready
        return idle and not self._findings and not self._flushing


def _nobody() -> None:
    """Publishers that wait at the board need no other call."""
