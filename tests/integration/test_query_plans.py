"""Query plans: with 50,000 sent rows kept, each statement of the relay's reads its own index and not the rest."""

from contextlib import contextmanager

import pytest
from sqlalchemy import event, insert, literal, select, text, update

from outbox.states import State
from outbox.store.claim import Place
from outbox.store.database import Database
from outbox.store.engine import create_engine
from outbox.store.filter import Filter
from outbox.store.lanes import due_lanes, left_to_do
from outbox.store.mark import MarkSent, Release, mark
from outbox.store.matching import act_on_matching, seen
from outbox.store.purge import purge
from outbox.store.search import failures, search
from outbox.store.series import rates
from outbox.store.tally import tally
from outbox.table import MYSQL, messages
from tests.rows import ago, new_row, take, take_ordered, write_all, write_row

SENT_ROWS = 50_000


@pytest.fixture
def database(engine):
    return Database(engine)


def keep_sent_rows(engine):
    """Grow the table to `SENT_ROWS` sent rows, half of them once ordered, by doubling what is there."""
    seed = [{"state": "sent", "sent_at": ago(60), "outbox_id": f"{number:05}"} for number in range(SENT_ROWS // 64 + 1)]
    write_all(engine, [new_row(ordering_key="k" if number % 2 else None, **row) for number, row in enumerate(seed)])
    names = [column.name for column in messages.c if column.name != "id"]
    with engine.begin() as connection:
        for letter in "abcdef":
            values = [literal(letter) + messages.c[name] if name == "outbox_id" else messages.c[name] for name in names]
            connection.execute(insert(messages).from_select(names, select(*values)))


def backlog(engine):
    """Two busy lanes, one that waits, and keys of which some are blocked."""
    write_all(engine, [new_row() for _ in range(2000)])
    write_all(engine, [new_row(topic="later", available_at=ago(-3600)) for _ in range(500)])
    for state in ("failed", "pending", "pending"):
        keys = range(0, 300, 10 if state == "failed" else 1)
        write_all(engine, [new_row(topic="keyed", ordering_key=f"k{number}", state=state) for number in keys])


def explained(engine, work):
    """The plan of every statement that the work sends, as the database tells it."""
    sent, plans = [], []

    def listen(_connection, _cursor, statement, parameters, *_):
        if statement.startswith(("SELECT", "UPDATE", "WITH", "DELETE")):
            sent.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", listen)
    work()
    event.remove(engine, "before_cursor_execute", listen)
    explain = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN "
    with engine.connect() as connection:
        for statement, parameters in sent:
            if "outbox_messages" in statement:
                plans.append(
                    [dict(row) for row in connection.exec_driver_sql(explain + statement, parameters).mappings()]
                )
    return plans


def read_in_full(engine, plans):
    """Steps that read all messages, or all that an index holds."""
    return [step for plan in plans for step in plan if READS_ALL[engine.dialect.name](step)]


def reads_all_postgresql(step):
    return "Seq Scan on outbox_messages" in step["QUERY PLAN"]


def reads_all_mysql(step):
    is_messages = step["table"] not in (None, "picked", "v", "outbox_pauses", "outbox_attempts") and not step[
        "table"
    ].startswith("<")
    return is_messages and step["type"] in ("ALL", "index")


def reads_all_sqlite(step):
    detail = step["detail"]
    walks = ("SCAN first USING INDEX ix", "SCAN walk", "SCAN chain", "SCAN unordered", "SCAN ordered", "SCAN CONSTANT")
    tables = (
        "SCAN json_each",
        "SCAN outbox_pauses",
        "SCAN (subquery",
        "SCAN free USING INDEX ix",
        "SCAN keyed USING INDEX ix",
        *("SCAN kind", "SCAN happened", "SCAN newest", "SCAN ended", "SCAN tried", "SCAN outbox_attempts"),
    )
    return "BLOOM FILTER" in detail or (detail.startswith("SCAN") and not detail.startswith(walks + tables))


READS_ALL = {"postgresql": reads_all_postgresql, "mysql": reads_all_mysql, "sqlite": reads_all_sqlite}


def indexes(plans):
    """Which of our two indexes the plans use; MariaDB names others that it might have used."""
    used = str([{**step, "possible_keys": None} for plan in plans for step in plan]).replace(
        "messages_state_", "messages_"
    )
    return {name for name in ("due", "ordered") if f"ix_outbox_messages_{name}" in used}


@pytest.mark.parametrize("analysed", [False, True])
def test_relay_reads_indexes(engine, database, analysed):
    """Claims, marks and looks for work use their indexes, with fresh statistics and without any."""
    keep_sent_rows(engine)
    backlog(engine)
    if analysed:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ANALYZE TABLE outbox_messages" if engine.dialect.name in MYSQL else "ANALYZE"))
    keyed = due_lanes(database)[0].lane

    (last,) = take(database, limit=1)
    claims = explained(engine, lambda: take(database, limit=100))
    onwards = explained(engine, lambda: take(database, limit=100, behind=Place(last.available_at, last.id)))
    ordered_claims = explained(engine, lambda: take_ordered(database, lane=keyed, limit=50, after_key="k5"))
    with_followers = explained(engine, lambda: take_ordered(database, lane=keyed, limit=500, skip_failed_heads=True))
    lanes = explained(engine, lambda: due_lanes(database))
    left = explained(engine, lambda: left_to_do(database, frozenset()))
    rows = take(database, limit=100)
    marks = [MarkSent(row.id, row.lease_token, "M") for row in rows[:50]]
    marks += [Release(row.id, row.lease_token) for row in rows[50:]]
    marked = explained(engine, lambda: mark(database, marks))

    everything = [claims, onwards, ordered_claims, with_followers, lanes, left, marked]
    assert all(everything)
    assert [[]] * 7 == [read_in_full(engine, plans) for plans in everything]
    assert {"due"} == indexes(claims) == indexes(onwards)
    assert {"ordered"} == indexes(ordered_claims) == indexes(with_followers)
    assert {"due", "ordered"} == indexes(lanes) == indexes(left)


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_relay_reads_its_own_indexes_by_old_statistics(engine, database):
    """Where the statistics are of a time when nothing had been sent, no index of all messages serves for another."""
    write_all(engine, [new_row() for _ in range(5000)])
    write_all(engine, [new_row(ordering_key=f"k{number}") for number in range(500)])
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    lane = due_lanes(database)[0].lane

    plans = explained(engine, lambda: left_to_do(database, frozenset()))
    plans += explained(engine, lambda: take(database, limit=100))
    plans += explained(engine, lambda: take_ordered(database, lane=lane, limit=100))

    assert "uq_outbox_messages" not in str(plans)
    assert [] == read_in_full(engine, plans)


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_relay_that_began_with_an_empty_outbox_reads_no_table(engine):
    """What was planned while the outbox was as good as empty is planned again when it is not."""
    ours = create_engine(engine.url, pool_size=1)
    database = Database(ours)
    write_row(engine, outbox_id="first")

    def relay():
        take(database, limit=1, lease_s=-1.0, max_attempts=1000)
        due_lanes(database)
        left_to_do(database, frozenset())

    for _ in range(12):
        relay()
    keep_sent_rows(engine)
    write_all(engine, [new_row() for _ in range(200)])
    with read_without_index(ours) as read:
        relay()
    ours.dispose()

    assert 3 <= len(read)
    assert max(read) < SENT_ROWS


@contextmanager
def read_without_index(engine):
    """A list that fills with the messages that each transaction has so far read in full, after each statement."""
    read = []
    query = "SELECT coalesce(sum(seq_tup_read), 0) FROM pg_stat_xact_user_tables WHERE relname = 'outbox_messages'"

    def listen(connection, *_):
        with connection.connection.cursor() as cursor:
            cursor.execute(query)
            read.append(int(cursor.fetchone()[0]))

    event.listen(engine, "after_cursor_execute", listen)
    yield read
    event.remove(engine, "after_cursor_execute", listen)


def test_pages_read_no_table(engine, database):
    """What the operators' pages ask for reads a part of the rows, however many have been sent."""
    keep_sent_rows(engine)
    with engine.begin() as connection:
        connection.execute(update(messages).values(sent_at=ago(7200)))
    backlog(engine)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE TABLE outbox_messages" if engine.dialect.name in MYSQL else "ANALYZE"))

    counted = explained(engine, lambda: tally(database))
    drawn = explained(engine, lambda: rates(database))
    listed = explained(engine, lambda: search(database, Filter(State.FAILED)))
    grouped = explained(engine, lambda: failures(database))
    asked = explained(engine, lambda: seen(database, Filter(State.FAILED), most=10_001))
    acted = explained(engine, lambda: act_on_matching(database, "discard", Filter(State.FAILED), by="ann", reason="r"))

    everything = [counted, drawn, listed, grouped, asked, acted]
    assert all(everything)
    assert [[]] * 6 == [read_in_full(engine, plans) for plans in everything]


@pytest.mark.parametrize("database_kind", ["mariadb"])
def test_claim_sorts_nothing(engine, database):
    """On MariaDB the index gives the order, so that a claim reads few more rows than it takes."""
    keep_sent_rows(engine)
    write_all(engine, [new_row() for _ in range(2000)])

    plans = explained(engine, lambda: take(database, limit=100))
    before = rows_read(engine)
    rows = take(database, limit=100)
    session, reads = before[0], rows_read(engine)[1] - before[1]

    assert "filesort" not in str(plans)
    assert (100, rows_read(engine)[0]) == (len(rows), session)
    assert reads < 1000


def rows_read(engine):
    """The number of the pool's only session, and how many rows of any index it has read."""
    statuses = "SELECT SUM(variable_value) FROM information_schema.session_status"
    with engine.connect() as connection:
        reads = connection.scalar(text(f"{statuses} WHERE variable_name LIKE 'handler_read%'"))
        return connection.scalar(text("SELECT connection_id()")), int(reads)


@pytest.mark.parametrize("database_kind", ["mariadb"])
def test_statements_by_id_scan_no_small_table(engine, database):
    """MariaDB would read all of a small table, and so wait for whatever row somebody else has locked."""
    rows = [write_row(engine) for _ in range(3)]
    claims = explained(engine, lambda: take(database))
    expired = explained(engine, lambda: purge(database, -5.0))

    updates = [step for plan in claims for step in plan if step["table"] == "m"]
    assert 3 == len(rows)
    assert ["eq_ref"] * len(updates) == [step["type"] for step in updates]
    assert expired
