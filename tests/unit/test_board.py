"""The relay's state between its stages, without threads or database: one method after the other."""

import threading
from datetime import UTC, datetime

import pytest

from outbox.outcomes import Fault, Outcome, Paused, Refused, Sent, Unknown
from outbox.relay.board import Board
from outbox.retry import Policy
from outbox.store.claim import ClaimedRow
from outbox.store.lanes import Lane
from outbox.store.mark import MarkFailed, MarkRetry, MarkSent, Release

LANE = Lane("default", "orders")
OTHER = Lane("default", "others")
SENT = Sent("0" * 32)
DOWN = Paused(Fault("ConnectionRefused", "nobody listens"))
LOST = Unknown(Fault("Timeout", "no answer", accepted=None))
WRONG = Refused(Fault("InvalidArgument", "no"))


class StillClock:
    """A clock that moves only when told, for a single thread."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def uniform(self, low: float, high: float) -> float:
        return (low + high) / 2

    def lock(self):
        return threading.RLock()

    def condition(self, lock):
        return threading.Condition(lock)


@pytest.fixture
def clock():
    return StillClock()


@pytest.fixture
def board(clock):
    return Board(clock, Policy(), room=4, bytes_in_flight=100)


def row(row_id: int, key: str | None = None, size: int = 1, topic: str = "orders") -> ClaimedRow:
    return ClaimedRow(
        id=row_id,
        outbox_id=f"id-{row_id}",
        destination="default",
        topic=topic,
        tag=None,
        properties="",
        ordering_key=key,
        deliver_at=None,
        transaction_check_s=None,
        body="x" * size,
        body_bytes=size,
        attempts=0,
        unknown_outcomes=0,
        replays=0,
        available_at=datetime(2026, 1, 1, tzinfo=UTC),
        claimed_at=datetime(2026, 1, 1, tzinfo=UTC),
        lease_token="token",
        alone=False,
    )


def offer(board: Board, *rows: ClaimedRow, lane: Lane = LANE, before: float = 200.0, probe=None) -> int:
    return board.offer(lane, rows, before, probe)


def publish(board: Board, outcome: Outcome | None = SENT) -> int:
    """Take one row and report its outcome; its id."""
    assignment = board.take()
    assert assignment is not None
    board.done(assignment, outcome)
    return assignment.row.id


def marks(board: Board) -> list:
    findings = board.findings()
    assert findings is not None
    board.told(findings)
    return findings.marks


def test_rows_are_taken_in_order(board):
    """Rows without an ordering key go out as they came."""
    offer(board, row(1), row(2))

    assert [publish(board), publish(board)] == [1, 2]
    assert [MarkSent(1, "token", "0" * 32), MarkSent(2, "token", "0" * 32)] == marks(board)


def test_rows_of_one_key_are_in_flight_one_at_a_time(board):
    """The next row of a key is taken only after the one before it is sent."""
    offer(board, row(1, "a"), row(2, "a"), row(3, "b"))
    first, other = board.take(), board.take()

    assert (first.row.id, other.row.id) == (1, 3)
    board.done(first, SENT)
    assert board.take().row.id == 2


def test_failure_gives_the_followers_back(board):
    """When the head of a key does not get through, its followers go back untouched."""
    offer(board, row(1, "a"), row(2, "a"), row(3, "a"))
    publish(board, LOST)
    retried, *released = marks(board)

    assert isinstance(retried, MarkRetry)
    assert [Release(2, "token"), Release(3, "token")] == released
    assert board.empty()


def test_pause_gives_back_what_is_not_in_flight(board):
    """One fault of the endpoint's ends the lane's batch; rows in flight finish, other lanes go on."""
    offer(board, row(1), row(2), row(3))
    offer(board, row(9, topic="others"), lane=OTHER)
    in_flight = board.take()
    publish(board, DOWN)
    findings = board.findings()

    assert [LANE] == [pause.lane for pause in findings.pauses]
    assert 0.5 == findings.pauses[0].for_s
    assert Release(3, "token") in findings.marks
    board.done(in_flight, SENT)
    assert publish(board) == 9


def test_rows_claimed_before_the_pause_is_known_go_back(board):
    """A claim that crossed the pause is released, and publishing starts again once the database knows of the pause."""
    offer(board, row(1))
    publish(board, DOWN)
    assert offer(board, row(2)) == 0
    findings = board.findings()
    board.told(findings)

    assert Release(2, "token") in findings.marks
    assert offer(board, row(3)) == 1


def test_fifth_lost_answer_in_a_row_pauses_the_lane(board):
    """Four rows pay for a lost answer each; the fifth finds the broker at fault."""
    offer(board, *(row(n) for n in range(1, 8)))
    for _ in range(5):
        publish(board, LOST)
    findings = board.findings()

    assert 5 == sum(isinstance(mark, MarkRetry) and mark.charge for mark in findings.marks)
    assert [LANE] == [pause.lane for pause in findings.pauses]
    assert 2 == sum(isinstance(mark, Release) for mark in findings.marks)


def test_stragglers_of_a_paused_lane_are_not_charged(board):
    """A lost answer that comes in after the lane paused counts as unknown and costs no attempt."""
    offer(board, row(1), row(2))
    straggler = board.take()
    publish(board, DOWN)
    board.done(straggler, LOST)
    mark = next(mark for mark in marks(board) if mark.id == 1)

    assert (mark.charge, mark.unknown) == (False, True)


def test_twentieth_refusal_in_a_row_pauses_the_lane(clock):
    """A bad deploy fails twenty rows, not a million."""
    board = Board(clock, Policy(), room=100, bytes_in_flight=100)
    offer(board, *(row(n) for n in range(30)))
    for _ in range(20):
        publish(board, WRONG)
    findings = board.findings()

    assert 20 == sum(isinstance(mark, MarkFailed) for mark in findings.marks)
    assert 10 == sum(isinstance(mark, Release) for mark in findings.marks)


def test_row_whose_lease_nearly_ended_is_not_started(board, clock):
    """A publish that could outlast the lease is left to the next claim."""
    offer(board, row(1), before=150.0)
    offer(board, row(2), before=200.0)
    clock.now = 160.0

    assert publish(board) == 2
    assert Release(1, "token") in marks(board)


def test_large_bodies_wait_for_their_budget(board):
    """Bodies in flight stay under the budget; one larger than all of it goes alone."""
    offer(board, row(1, size=80), row(2, size=80))
    first = board.take()
    taken = []
    waiting = threading.Thread(target=lambda: taken.append(board.take()), daemon=True)
    waiting.start()
    waiting.join(0.05)

    assert [] == taken
    board.done(first, SENT)
    waiting.join(5)
    assert [2] == [assignment.row.id for assignment in taken]


def test_lost_lease_marks_nothing(board):
    """A row whose body could not be read under its lease leaves no mark."""
    offer(board, row(1))
    publish(board, None)

    assert board.empty()


def test_board_is_crowded_at_its_room(board):
    """The claimer waits while as many rows lie here as there is room for."""
    offer(board, *(row(n) for n in range(4)))

    assert not board.wait_for_room(0)
    board.take()
    assert board.wait_for_room(0)


def test_close_gives_back_and_lets_the_marker_end(board):
    """What no publisher took is released, and after the last row in flight the marker ends."""
    offer(board, row(1, "a"), row(2, "a"), row(3))
    in_flight = board.take()
    board.close()

    assert board.take() is None
    board.done(in_flight, SENT)
    assert {1, 2, 3} == {mark.id for mark in marks(board)}
    assert board.findings() is None
