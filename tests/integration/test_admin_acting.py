"""What operators do on pages: strings that a form brought, checked before anything is done."""

import pytest

from outbox import admin
from outbox.errors import OperationError
from outbox.store.database import Database
from outbox.store.search import search
from tests.rows import audits, states, write_row, write_rows

WHY = {"by": "ann", "reason": "endpoint repaired"}

on_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"])


@pytest.fixture
def database(engine):
    return Database(engine)


@on_sqlite
def test_target_text_is_what_was_seen(engine, database):
    """A selected row stands for the row in the state in which it was shown, named twice or once."""
    row_id = write_row(engine, state="failed", replays=2)
    (row,) = search(database, admin.Filter()).rows
    text = admin.target_text(row)

    assert f"{row_id}.failed.2" == text
    assert [admin.Target(row_id, "failed", 2)] == admin.parse_targets([text, text])


@pytest.mark.parametrize(
    "forged",
    [
        "",
        "17",
        "17.failed",
        "17.gone.0",
        "x.failed.0",
        "17.failed.-1",
        "9" * 19 + ".failed.0",
        "\u0661.failed.0",
        "1.failed.0\n",
    ],
)
def test_parse_targets_refuses_what_no_page_made(forged):
    """A forged selection is refused as a whole."""
    with pytest.raises(OperationError, match="not one that this page has made"):
        admin.parse_targets(["1.failed.0", forged])


@on_sqlite
def test_act_on_nothing(engine, database):
    """Without a selection there is nothing to do, which is said."""
    with pytest.raises(OperationError, match="no row is selected"):
        admin.act_on_selected(database, "replay", [], **WHY)


@on_sqlite
def test_act_on_an_unknown_verb(engine, database):
    """Only replay and discard are acts on rows."""
    row_id = write_row(engine, state="failed")

    with pytest.raises(OperationError, match="neither replay nor discard"):
        admin.act_on_selected(database, "purge", [f"{row_id}.failed.0"], **WHY)
    with pytest.raises(OperationError, match="neither replay nor discard"):
        admin.act_on_matching(database, "purge", admin.Filter("failed"), **WHY)


@on_sqlite
@pytest.mark.parametrize("reason", ["", " \n ", "x" * 501])
def test_act_needs_a_reason(engine, database, reason):
    """Without a reason, or with one that is too long, nothing is done."""
    (row_id,) = write_rows(engine, 1, state="failed")
    deeds = [
        lambda: admin.act_on_selected(database, "replay", [f"{row_id}.failed.0"], by="ann", reason=reason),
        lambda: admin.act_on_matching(database, "replay", admin.Filter("failed"), by="ann", reason=reason),
        lambda: admin.pause(database, "default", "orders", by="ann", reason=reason),
        lambda: admin.resume(database, "default", "orders", by="ann", reason=reason),
    ]

    for deed in deeds:
        with pytest.raises(OperationError, match=r"^reason: "):
            deed()
    assert {row_id: "failed"} == states(engine)
    assert [] == audits(engine)


@on_sqlite
def test_reason_is_one_line(engine, database):
    """Line breaks and what does not print are blanks in the audit."""
    admin.pause(database, " default ", "orders", by="ann", reason=" one\ntwo\x1b ")

    assert ["one two "] == [one["reason"] for one in audits(engine)]


@on_sqlite
@pytest.mark.parametrize("topic", ["", "a b", "x" * 65])
def test_pause_names_a_lane(engine, database, topic):
    """What is no topic's name cannot be paused; the problem is named after its field."""
    with pytest.raises(OperationError, match=r"^topic: got "):
        admin.pause(database, "default", topic, **WHY)

    assert [] == admin.paused(database)


def test_pause_and_resume(engine, database):
    """A pause is in force until it is resumed; resuming what is not paused says so."""
    admin.pause(database, "default", "orders", **WHY)
    paused = admin.paused(database)
    admin.resume(database, "default", "orders", **WHY)

    assert [("orders", "ann", False)] == [(one["topic"], one["by"], one["automatic"]) for one in paused]
    assert [] == admin.paused(database)
    with pytest.raises(OperationError, match="default/orders is not paused by an operator"):
        admin.resume(database, "default", "orders", **WHY)
    assert ["pause", "resume"] == [one["action"] for one in audits(engine)]


@pytest.mark.parametrize(
    ("act", "force", "rights"),
    [
        ("view", False, {"view"}),
        ("view_body", False, {"view", "view_body"}),
        ("replay", False, {"view", "replay"}),
        ("replay", True, {"view", "replay", "force"}),
        ("discard", True, {"view", "discard", "force"}),
        ("pause", False, {"view", "pause"}),
        ("resume", False, {"view", "pause"}),
    ],
)
def test_rights_that_an_act_needs(act, force, rights):
    """Every act needs the right to look, and its own."""
    assert rights == set(admin.needed(act, force=force))
    assert rights <= set(admin.RIGHTS)


def test_overview_without_a_version(engine):
    """Tables that somebody has made without a migration can be looked at all the same."""
    from sqlalchemy import text

    database = Database(engine)
    with_one = admin.overview(database).schema_version
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE outbox_alembic_version"))

    assert "0001" == with_one
    assert admin.overview(database).schema_version is None
    assert 0 == admin.overview(database).tally.counts["failed"].number
