"""Claims of rows with ordering keys: one key, one relay, in the order of the ids."""

import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import pytest

from outbox.outcomes import Fault
from outbox.store.database import Database
from outbox.store.mark import MarkFailed, MarkRetry, MarkSent, Release, mark
from tests.rows import (
    ago,
    change,
    expire_leases,
    ids,
    lease_row,
    locked,
    new_row,
    read_row,
    states,
    take,
    take_ordered,
    write_all,
    write_key,
    write_row,
)

REFUSED = Fault("InvalidArgument", "the broker refused it")

with_row_locks = pytest.mark.parametrize("database_kind", ["postgresql", "mariadb"])


@pytest.fixture
def database(engine):
    return Database(engine)


def write_keys(engine, keys, rows_of_each):
    """From key to its row ids; rows of different keys alternate, as they do in life."""
    written = defaultdict(list)
    for _ in range(rows_of_each):
        for key in keys:
            written[key] += write_key(engine, key, "pending")
    return written


def test_claim_ordered_keeps_keys_together(engine, database):
    """Rows of one key stand together, in the order of their ids, key after key."""
    written = write_keys(engine, ("b", "a", "c"), 3)

    rows = take_ordered(database)

    assert [*written["a"], *written["b"], *written["c"]] == ids(rows)
    assert list("aaabbbccc") == [row.ordering_key for row in rows]
    assert 1 == len({row.lease_token for row in rows})


def test_claim_ordered_leaves_unordered_rows(engine, database):
    """The two kinds of claim share a lane and never a row."""
    plain, (keyed,) = write_row(engine), write_key(engine, "k", "pending")

    assert [keyed] == ids(take_ordered(database))
    assert [plain] == ids(take(database))


def test_claim_ordered_shares_the_limit(engine, database):
    """A busy key does not crowd out the others: the limit is shared evenly."""
    busy, calm = write_key(engine, "busy", *["pending"] * 10), write_key(engine, "calm", "pending")

    assert [*busy[:3], *calm] == ids(take_ordered(database, limit=6))


def test_claim_ordered_begins_after_the_last_key(engine, database):
    """Keys take turns: from after the last one, and round again."""
    written = write_keys(engine, "abcd", 1)

    assert [*written["c"], *written["d"], *written["a"]] == ids(take_ordered(database, after_key="b", limit=3))


def test_claim_ordered_finds_more_keys_than_a_page(engine, database):
    """However many keys cannot be claimed, those behind them are found."""
    write_all(engine, [new_row(ordering_key=f"k{number:04}", available_at=ago(-60)) for number in range(1050)])
    last = write_key(engine, "z", "pending")

    assert last == ids(take_ordered(database))


def test_claim_ordered_ends_at_a_leased_row(engine, database):
    """What follows a row that somebody else holds is not taken past it."""
    h1, h2, _h3 = write_key(engine, "h", "pending", "pending", "pending")
    lease_row(engine, h2)

    assert [h1] == ids(take_ordered(database))


def test_claim_ordered_skips_a_leased_head(engine, database):
    """While a relay holds a key's head, nobody else has any row of the key."""
    head, *_ = write_key(engine, "h", "pending", "pending")
    lease_row(engine, head)

    assert [] == take_ordered(database)


def test_claim_ordered_waits_for_a_head_in_backoff(engine, database):
    """A row that must be tried again later holds up its key, and no other key."""
    head, *_ = write_key(engine, "h", "pending", "pending")
    change(engine, head, available_at=ago(-60))
    other = write_key(engine, "i", "pending")

    assert other == ids(take_ordered(database))


def test_claim_ordered_ends_at_a_row_not_due(engine, database):
    """Nor is a row in backoff in the middle of a key jumped over."""
    h1, h2, _h3 = write_key(engine, "h", "pending", "pending", "pending")
    change(engine, h2, available_at=ago(-60))

    assert [h1] == ids(take_ordered(database))


@with_row_locks
def test_claim_ordered_skips_a_locked_head(engine, database):
    """h1 and h2 locked by another claim: h3 is not handed out, and nothing is waited for."""
    h1, h2, *_ = written = write_key(engine, "h", *["pending"] * 4)

    with locked(engine, h1, h2):
        claimed = take_ordered(database)

    assert [] == claimed
    assert written == ids(take_ordered(database))


@with_row_locks
def test_claim_ordered_ends_at_a_locked_row(engine, database):
    """h2 locked: h1 alone is handed out, not h1, h3, h4."""
    h1, h2, *_ = write_key(engine, "h", *["pending"] * 4)

    with locked(engine, h2):
        claimed = ids(take_ordered(database))

    assert [h1] == claimed


def test_claim_ordered_stops_before_a_failed_row(engine, database):
    """A failed row blocks what is behind it in its key; what is before it goes out."""
    h1, *_ = write_key(engine, "h", "pending", "failed", "pending")

    assert [h1] == ids(take_ordered(database))


def test_claim_ordered_blocks_behind_a_failed_head(engine, database):
    """A failed head blocks its key alone, until an operator closes it."""
    failed, behind = write_key(engine, "h", "failed", "pending")
    other = write_key(engine, "i", "pending")
    claimed = ids(take_ordered(database))
    change(engine, failed, state="discarded")

    assert other == claimed
    assert [behind] == ids(take_ordered(database))


def test_claim_ordered_can_skip_failed_rows(engine, database):
    """Where the topic asks for it, a key goes on past its failed rows, in order."""
    _, h2, _, h4 = write_key(engine, "h", "failed", "pending", "failed", "pending")
    write_key(engine, "i", "failed")

    assert [h2, h4] == ids(take_ordered(database, skip_failed_heads=True))


def test_claim_ordered_passes_finished_rows(engine, database):
    """Rows that are sent, discarded or in doubt block nothing."""
    *_, last = write_key(engine, "h", "sent", "discarded", "in_doubt", "pending")

    assert [last] == ids(take_ordered(database))


def test_claim_ordered_after_marks(engine, database):
    """Sent rows open the key for the next; a retry in the middle holds back what was released behind it."""
    h1, h2, h3 = write_key(engine, "h", "pending", "pending", "pending")
    first, second, third = take_ordered(database)
    token = first.lease_token
    marks = [
        MarkSent(h1, token, "M"),
        MarkRetry(h2, token, 60.0, REFUSED, charge=True, unknown=False),
        Release(h3, token),
    ]

    lost = mark(database, marks)

    assert (frozenset(), [h1, h2, h3]) == (lost, ids((first, second, third)))
    assert [] == take_ordered(database)
    change(engine, h2, available_at=ago(1))
    assert [h2, h3] == ids(take_ordered(database))


def test_claim_ordered_takes_over_a_whole_prefix(engine, database):
    """An expired lease gives the key to the next relay, each row counted as a crash."""
    written = write_key(engine, "h", "pending", "pending")
    take_ordered(database)
    expire_leases(engine)

    rows = take_ordered(database)

    assert written == ids(rows)
    assert [1, 1] == [read_row(engine, row_id)["crashes"] for row_id in written]


def test_claim_ordered_takes_a_poison_head_alone(engine, database):
    """The oldest head, when two processes did not survive it, is the only row of its claim."""
    poison, _ = write_key(engine, "b", "pending", "pending", crashes=2)
    write_key(engine, "a", "pending")

    (alone,) = take_ordered(database)

    assert (poison, True) == (alone.id, alone.alone)


def test_claim_ordered_leaves_a_younger_poison_head_out(engine, database):
    """A batch of healthy rows takes no poison row along, nor what follows it."""
    healthy = write_key(engine, "b", "pending", "pending")
    poison, _ = write_key(engine, "a", "pending", "pending")
    change(engine, poison, crashes=2)

    assert healthy == ids(take_ordered(database))
    assert [poison] == ids(take_ordered(database))


def test_claim_ordered_ends_before_a_poison_row(engine, database):
    """A poison row in the middle of a key waits until it is the head."""
    h1, h2, _h3 = write_key(engine, "h", "pending", "pending", "pending")
    change(engine, h2, crashes=2)

    assert [h1] == ids(take_ordered(database))


def test_claim_ordered_buries_a_head_out_of_attempts(engine, database):
    """A head that crashed alone for the last time is failed, and then blocks its key like any failed row."""
    head, behind = write_key(engine, "h", "pending", "pending")
    change(engine, head, crashes=2, attempts=9)
    lease_row(engine, head, seconds=-1)

    claimed = take_ordered(database, max_attempts=10)

    assert [] == claimed
    assert {head: "failed", behind: "pending"} == states(engine)


def test_claim_ordered_by_many_at_once(engine, database):
    """Eight relays at once: no key is ever in two hands, and each is published in the order of its ids."""
    written = write_keys(engine, [f"k{number}" for number in range(12)], 12)
    held, published, shared = set(), defaultdict(list), []
    mutex, start = threading.Lock(), threading.Barrier(8)

    def relay(number):
        start.wait()
        key = f"k{number}"
        for _ in range(200):
            rows = take_ordered(database, after_key=key, limit=10)
            keys = {row.ordering_key for row in rows}
            with mutex:
                shared.extend(keys & held)
                held.update(keys)
            for row in rows:
                published[row.ordering_key].append(row.id)
            with mutex:
                held.difference_update(keys)
            mark(database, [MarkSent(row.id, row.lease_token, "M") for row in rows])
            key = rows[-1].ordering_key if rows else ""
            if sum(map(len, published.values())) == 144:
                return

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(relay, range(8)))

    assert [] == shared
    assert written == published


def test_claim_ordered_never_overtakes_a_failure(engine, database):
    """A row marked failed blocks its key from that mark on."""
    h1, h2 = write_key(engine, "h", "pending", "pending")
    token = take_ordered(database)[0].lease_token

    mark(database, [MarkFailed(h1, token, REFUSED, unknown=False), Release(h2, token)])

    assert [] == take_ordered(database)
    assert {h1: "failed", h2: "pending"} == states(engine)
