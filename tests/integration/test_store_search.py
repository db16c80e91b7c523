"""Searching: pages, counts and groups, in windows along the ids, for as long as there is time."""

import pytest

from outbox.states import State
from outbox.store import search as module
from outbox.store.database import Database
from outbox.store.filter import Filter
from outbox.store.search import failures, search
from outbox.store.tally import Count
from tests.rows import ago, change, new_row, read_row, statements, write_all, write_row, write_rows

# Before the tests were collected; whatever else they write is an hour older.
MINUTE_AGO = ago(60)


@pytest.fixture
def database(engine):
    return Database(engine)


@pytest.fixture
def small_windows(monkeypatch):
    """Windows of two rows that never grow."""
    monkeypatch.setattr(module, "_FIRST_WINDOW", 2)
    monkeypatch.setattr(module, "_GROWTH", 1)


def ids(found):
    return [row["id"] for row in found.rows]


def test_search_pages_through_everything(engine, database):
    """Pages follow each other without a gap, the newest first, and the last says that it is the last."""
    rows = write_rows(engine, 5)

    first = search(database, Filter(), limit=2)
    second = search(database, Filter(), limit=2, before=first.before)
    last = search(database, Filter(), limit=2, before=second.before)

    assert rows[::-1] == [*ids(first), *ids(second), *ids(last)]
    assert [Count(5)] * 3 == [page.total for page in (first, second, last)]
    assert last.before is None
    assert not last.time_was_up


def test_search_shows_no_body(engine, database):
    """Rows come as they are listed elsewhere: without bodies and leases."""
    write_row(engine)

    (row,) = search(database, Filter()).rows

    assert not {"body", "lease_until", "lease_token"} & set(row)
    assert {"outbox_id", "properties", "replays"} < set(row)


@pytest.mark.parametrize(
    ("meant", "columns"),
    [
        (Filter(State.FAILED), {"state": "failed"}),
        (Filter(State.SENT), {"state": "sent"}),
        (Filter(destination="billing"), {"destination": "billing"}),
        (Filter(topic="invoices"), {"topic": "invoices"}),
        (Filter(error_code="Timeout"), {"last_error_code": "Timeout"}),
        (Filter(State.FAILED, error_code="Timeout"), {"state": "failed", "last_error_code": "Timeout"}),
        (Filter(key="order-9"), {"keys": "customer-3 order-9"}),
        (
            Filter(outbox_id="0190a5b0-0000-7000-8000-000000000000"),
            {"outbox_id": "0190a5b0-0000-7000-8000-000000000000"},
        ),
        (Filter(message_id="0A0B"), {"message_id": "0A0B"}),
        (Filter(created_from=MINUTE_AGO), {"created_at": MINUTE_AGO}),
        (Filter(created_until=ago(7200)), {"created_at": ago(7201)}),
    ],
    ids=[
        "failed",
        "sent",
        "destination",
        "topic",
        "code",
        "failed-code",
        "key",
        "outbox_id",
        "message_id",
        "from",
        "until",
    ],
)
def test_search_by_each_field(engine, database, meant, columns):
    """Each field of a filter finds the rows that it is of, and no others."""
    write_row(engine, keys="order-99", last_error_code="timeout", message_id="0a0b", created_at=ago(3600))
    ours = write_row(engine, **{"created_at": ago(3600)} | columns)
    write_row(engine, keys="Order-9", topic="Invoices", created_at=ago(3600))

    found = search(database, meant)

    assert [ours] == ids(found)
    assert Count(1) == found.total


def test_search_by_row_id(engine, database):
    """Digits are a row id."""
    rows = write_rows(engine, 3)

    assert [rows[1]] == ids(search(database, Filter(outbox_id=str(rows[1]))))


def test_search_finds_instants_among_many(engine, database, monkeypatch):
    """Where the rows of an instant begin is found without reading all, purged ids or not."""
    monkeypatch.setattr(module, "_PLACES", 4)
    monkeypatch.setattr(module, "_NEAR", 4)
    rows = write_all(engine, [new_row(created_at=ago(10_000 - 100 * number)) for number in range(100)])
    for row_id in rows[20:60:3]:
        change(engine, row_id, topic="others")

    found = search(database, Filter(topic="orders", created_from=ago(8010), created_until=ago(4010)))

    expected = [row_id for row_id in rows[20:60] if row_id not in rows[20:60:3]]
    assert expected[::-1] == ids(found)


def test_search_finds_instants_among_purged_ids(engine, database, monkeypatch):
    """Where ids are missing for long, as after a purge, the search looks at all of the gap at once."""
    monkeypatch.setattr(module, "_PLACES", 4)
    monkeypatch.setattr(module, "_NEAR", 4)
    write_row(engine, id=1, created_at=ago(9000))
    ours = write_row(engine, id=1_000_003, created_at=ago(1000))

    assert [ours] == ids(search(database, Filter(created_from=ago(2000))))
    assert [1] == ids(search(database, Filter(created_until=ago(2000))))


def test_search_window_after_window(engine, database, small_windows):
    """A page that one window does not fill is filled from the next."""
    rows = write_all(engine, [new_row(topic="rare" if number % 5 == 0 else "orders") for number in range(20)])

    found = search(database, Filter(topic="rare"), limit=3, page_s=9, count_s=9)

    assert rows[::5][::-1][:3] == ids(found)
    assert Count(4) == found.total


def test_search_stops_when_time_is_up(engine, database, small_windows):
    """A search whose time is up gives what it has, and the next page goes on from there."""
    rows = write_all(engine, [new_row(topic="rare" if number == 0 else "orders") for number in range(10)])

    pages, before = [], None
    for _ in range(10):
        pages.append(search(database, Filter(topic="rare"), before=before, page_s=0))
        before = pages[-1].before
        if before is None:
            break

    assert [0, 0, 0, 0, 1] == [len(page.rows) for page in pages]
    assert [True] * 4 + [False] == [page.time_was_up for page in pages]
    assert rows[:1] == ids(pages[-1])
    assert Count(0, at_least=True) == pages[0].total


def test_search_counts_so_far(engine, database, small_windows):
    """Beyond a limit, or when time is up, a count says that there are at least so many."""
    write_rows(engine, 9)

    limited = search(database, Filter(), limit=1, most=6, count_s=9)
    hurried = search(database, Filter(), limit=1, count_s=0)

    assert Count(6, at_least=True) == limited.total
    assert Count(2, at_least=True) == hurried.total


def test_search_an_empty_table(database):
    """Without any message there is an empty page."""
    found = search(database, Filter(State.FAILED))

    assert ([], Count(0), None, False) == (found.rows, found.total, found.before, found.time_was_up)


def test_search_asks_little(engine, database):
    """A page costs few statements, however wide its filter."""
    write_rows(engine, 200)
    with statements(engine) as sent:
        search(database, Filter(topic="none", created_from=ago(9000), created_until=ago(-9000)))

    assert len(sent) <= 5


# --- groups -------------------------------------------------------------------------------------------------------


def write_failures(engine, count, code, text="no", **over):
    return [
        write_row(engine, state="failed", last_error_code=code, last_error=f"{text} {number}", **over)
        for number in range(count)
    ]


def test_failures_are_grouped(engine, database, small_windows):
    """Failed rows of a lane with one code are a group, whichever windows they are in; the largest comes first."""
    timeouts = write_failures(engine, 2, "Timeout")
    invalid = write_failures(engine, 3, "InvalidArgument")
    others = write_failures(engine, 1, "Timeout", topic="invoices")
    timeouts += write_failures(engine, 3, "Timeout", text="later")
    write_row(engine, state="sent", last_error_code="Timeout")

    found = failures(database, for_s=9)

    assert found.whole
    assert [
        ("orders", "Timeout", 5, timeouts[0], timeouts[-1], "later 2"),
        ("orders", "InvalidArgument", 3, invalid[0], invalid[-1], "no 2"),
        ("invoices", "Timeout", 1, others[0], others[0], "no 0"),
    ] == [(one.topic, one.code, one.rows, one.first_id, one.last_id, one.text) for one in found.groups]


def test_failures_say_when_there_are_more(engine, database, small_windows):
    """Whatever was not looked at, or not shown, is admitted."""
    write_failures(engine, 5, "Timeout")
    write_failures(engine, 1, "InvalidArgument")

    hurried, few = failures(database, for_s=0), failures(database, for_s=9, most=1)

    assert ([2], False) == ([sum(one.rows for one in hurried.groups)], hurried.whole)
    assert ([5], False) == ([one.rows for one in few.groups], few.whole)


def test_failures_of_nothing(database):
    """Without failed rows there are no groups."""
    found = failures(database)

    assert ([], True) == (found.groups, found.whole)


def test_failures_keep_a_row_as_it_is(engine, database):
    """Looking changes nothing."""
    (row_id,) = write_failures(engine, 1, "Timeout")
    before = dict(read_row(engine, row_id))

    failures(database)

    assert before == dict(read_row(engine, row_id))
