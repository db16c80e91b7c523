"""Marks: what came of a publish, written under the lease token and under nothing else."""

from datetime import UTC, datetime

import pytest

from outbox.outcomes import Fault
from outbox.store.database import Database
from outbox.store.lanes import Lane
from outbox.store.mark import MarkFailed, MarkRetry, MarkSent, Release, mark
from tests.rows import (
    ORDERS,
    change,
    expire_leases,
    history,
    ids,
    read_row,
    statements,
    states,
    take,
    write_row,
    write_rows,
)

TIMEOUT = Fault("Timeout", "no answer within 10 s", accepted=None)
REFUSED = Fault("InvalidArgument", "the broker refused it", 400, "req-1")


@pytest.fixture
def database(engine):
    return Database(engine)


@pytest.fixture
def claimed(engine, database):
    """One row under our lease."""
    write_row(engine)
    return take(database)[0]


def columns(engine, row_id, *names):
    row = read_row(engine, row_id)
    return tuple(row[name] for name in names)


def marks_of_each_kind(rows):
    return [
        MarkSent(rows[0].id, rows[0].lease_token, "M"),
        MarkRetry(rows[1].id, rows[1].lease_token, 1.0, TIMEOUT, charge=True, unknown=True),
        MarkFailed(rows[2].id, rows[2].lease_token, REFUSED, unknown=False),
        Release(rows[3].id, rows[3].lease_token),
    ]


def test_mark_sent(engine, database, claimed):
    """A sent row has the broker's MessageId, the database's time, and one attempt more; its lease is over."""
    lost = mark(database, [MarkSent(claimed.id, claimed.lease_token, "7F0000010A2B18B4AAC2")])

    row = read_row(engine, claimed.id)
    assert frozenset() == lost
    assert ("sent", "7F0000010A2B18B4AAC2", "answer", 1, None, None) == columns(
        engine, claimed.id, "state", "message_id", "confirmed_by", "attempts", "lease_until", "lease_token"
    )
    assert abs((datetime.now(UTC) - row["sent_at"]).total_seconds()) < 30
    assert [] == history(engine, claimed.id)


def test_mark_sent_without_keeping(engine, database):
    """Where sent rows are not kept, a row is deleted when it is sent, unless its lease was lost."""
    kept, gone = write_row(engine), write_row(engine)
    tokens = {row.id: row.lease_token for row in take(database)}

    lost = mark(database, [MarkSent(gone, tokens[gone], "M"), MarkSent(kept, "stale", "M")], keep_sent=False)

    assert frozenset({kept}) == lost
    assert {kept: "pending"} == states(engine)


def test_mark_sent_without_keeping_takes_the_history_along(engine, database, claimed):
    """No purge would find the history of a row that is gone."""
    mark(database, [MarkRetry(claimed.id, claimed.lease_token, 0.0, TIMEOUT, charge=True, unknown=True)])
    (again,) = take(database)

    mark(database, [MarkSent(again.id, again.lease_token, "M")], keep_sent=False)

    assert {} == states(engine)
    assert [] == history(engine, claimed.id)


def test_mark_sent_for_good_without_a_keeper(engine, database, claimed):
    """With every lease lost, nothing is deleted."""
    lost = mark(database, [MarkSent(claimed.id, "stale", "M")], keep_sent=False)

    assert frozenset({claimed.id}) == lost
    assert {claimed.id: "pending"} == states(engine)


def test_mark_retry_charged(engine, database, claimed):
    """A charged retry costs an attempt, waits by the database's clock, and keeps its fault."""
    mark(database, [MarkRetry(claimed.id, claimed.lease_token, 90.5, TIMEOUT, charge=True, unknown=True)])

    wait = (read_row(engine, claimed.id)["available_at"] - datetime.now(UTC)).total_seconds()
    assert 60 < wait <= 91
    assert ("pending", 1, 1, 0, "Timeout", "no answer within 10 s", None) == columns(
        engine,
        claimed.id,
        *("state", "attempts", "unknown_outcomes", "crashes", "last_error_code", "last_error", "lease_token"),
    )


def test_mark_retry_uncharged(engine, database, claimed):
    """A retry that is not the row's fault charges nothing, and counts only what may have been accepted."""
    mark(database, [MarkRetry(claimed.id, claimed.lease_token, 0.0, TIMEOUT, charge=False, unknown=False)])

    assert (0, 0) == columns(engine, claimed.id, "attempts", "unknown_outcomes")
    assert [claimed.id] == ids(take(database))


def test_mark_failed(engine, database, claimed):
    """A failed row waits for an operator, with one attempt more and what the broker said."""
    mark(database, [MarkFailed(claimed.id, claimed.lease_token, REFUSED, unknown=True)])

    assert ("failed", 1, 1, "InvalidArgument", "the broker refused it", None) == columns(
        engine,
        claimed.id,
        *("state", "attempts", "unknown_outcomes", "last_error_code", "last_error", "lease_token"),
    )


def test_release_gives_back_untouched(engine, database, claimed):
    """A row given back is as it was before the claim: due at once, charged nothing."""
    due_at = read_row(engine, claimed.id)["available_at"]

    mark(database, [Release(claimed.id, claimed.lease_token)])

    assert ("pending", 0, 0, 0, due_at) == columns(
        engine, claimed.id, "state", "attempts", "crashes", "unknown_outcomes", "available_at"
    )
    assert [claimed.id] == ids(take(database))
    assert 0 == read_row(engine, claimed.id)["crashes"]


def test_mark_of_every_kind_at_once(engine, database):
    """One transaction takes marks of all kinds, each row its own."""
    rows = write_rows(engine, 4)

    lost = mark(database, marks_of_each_kind(take(database)))

    assert frozenset() == lost
    assert ["sent", "pending", "failed", "pending"] == [states(engine)[row_id] for row_id in rows]


def test_mark_under_a_lost_token_changes_nothing(engine, database):
    """Whoever lost the lease writes nothing, whatever came of the publish, and is told so."""
    write_rows(engine, 4)
    stale = take(database)
    expire_leases(engine)
    fresh = take(database)
    before = [read_row(engine, row.id) for row in fresh]

    lost = mark(database, marks_of_each_kind(stale))

    assert frozenset(ids(fresh)) == lost
    assert before == [read_row(engine, row.id) for row in fresh]
    assert [] == [attempt for row in fresh for attempt in history(engine, row.id)]


def test_mark_after_the_row_was_finished(engine, database, claimed):
    """A row that another relay has marked, or that is gone, is left alone."""
    mark(database, [MarkSent(claimed.id, claimed.lease_token, "first")])

    lost = mark(database, [MarkSent(claimed.id, claimed.lease_token, "second"), Release(10**9, claimed.lease_token)])

    assert frozenset({claimed.id, 10**9}) == lost
    assert "first" == read_row(engine, claimed.id)["message_id"]


def test_mark_under_an_expired_lease_that_nobody_took(engine, database, claimed):
    """A late mark still counts while nobody else has claimed the row: the token is what decides."""
    expire_leases(engine)

    lost = mark(database, [MarkSent(claimed.id, claimed.lease_token, "M")])

    assert frozenset() == lost
    assert {claimed.id: "sent"} == states(engine)


def test_mark_a_row_of_another_state(engine, database, claimed):
    """Only a pending row can be marked."""
    change(engine, claimed.id, state="in_doubt")

    assert frozenset({claimed.id}) == mark(database, [MarkSent(claimed.id, claimed.lease_token, "M")])


def test_mark_nothing(engine, database):
    """No marks, no statement."""
    with statements(engine) as seen:
        lost = mark(database, [])

    assert (frozenset(), []) == (lost, seen)


def test_mark_writes_history(engine, database, claimed):
    """Each attempt that did not end well is written down with what was known of it."""
    mark(database, [MarkRetry(claimed.id, claimed.lease_token, 0.0, TIMEOUT, charge=True, unknown=True)])
    (again,) = take(database)
    mark(database, [MarkFailed(again.id, again.lease_token, REFUSED, unknown=False)])

    first, second = history(engine, claimed.id)
    assert ("Timeout", None, None, "no answer within 10 s", False) == tuple(
        first[name] for name in ("code", "http_status", "request_id", "text", "outcome_known")
    )
    assert ("InvalidArgument", 400, "req-1", True) == tuple(
        second[name] for name in ("code", "http_status", "request_id", "outcome_known")
    )


def test_mark_keeps_the_newest_twenty(engine, database):
    """A message's history ends where its twentieth newest attempt is; another message's does not count."""
    first, second = write_row(engine), write_row(engine, topic="other")
    for lane, times in ((ORDERS, 22), (Lane("default", "other"), 1)):
        for number in range(times):
            (row,) = take(database, lane=lane)
            fault = Fault(f"Code{number}", "text")
            mark(database, [MarkRetry(row.id, row.lease_token, 0.0, fault, charge=True, unknown=False)])

    assert [f"Code{number}" for number in range(2, 22)] == [attempt["code"] for attempt in history(engine, first)]
    assert ["Code0"] == [attempt["code"] for attempt in history(engine, second)]


def test_mark_bounds_what_the_broker_said(engine, database, claimed):
    """Errors are kept to 512 characters and codes to 64, without characters that act on a terminal."""
    fault = Fault("C" * 70, "\x1b[31mred\r\n\u202e" + "ü" * 600, request_id="r" * 70)

    mark(database, [MarkFailed(claimed.id, claimed.lease_token, fault, unknown=False)])

    (attempt,) = history(engine, claimed.id)
    text = " [31mred   " + "ü" * 501
    assert ("C" * 64, text) == columns(engine, claimed.id, "last_error_code", "last_error")
    assert ("C" * 64, "r" * 64, text) == (attempt["code"], attempt["request_id"], attempt["text"])


def test_mark_bounds_the_message_id(engine, database, claimed):
    """A MessageId that no column could hold must not keep its row from being marked."""
    mark(database, [MarkSent(claimed.id, claimed.lease_token, "M" * 200)])

    assert "M" * 128 == read_row(engine, claimed.id)["message_id"]


@pytest.mark.parametrize(("database_kind", "expected"), [("postgresql", 1), ("mariadb", 2), ("sqlite", 1)])
def test_mark_in_few_statements(engine, database, expected):
    """Five hundred sent rows are one statement on PostgreSQL and SQLite, two on MariaDB."""
    write_rows(engine, 500)
    rows = take(database)

    with statements(engine) as seen:
        lost = mark(database, [MarkSent(row.id, row.lease_token, "M") for row in rows])

    assert (frozenset(), expected) == (lost, len(seen))
    assert {"sent"} == set(states(engine).values())
