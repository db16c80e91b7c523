"""The relay as its settings build it: real clients, the emulator, and one runtime for each process."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from outbox import Message
from outbox.errors import ConfigError
from outbox.rocketmq.curl import CurlLoop
from outbox.settings import Settings
from outbox.wiring import Runtime
from tests.integration.fault_proxy import Server
from tests.relaying import rows, write

KEYS = {"OUTBOX_ACCESS_KEY_ID": "FAKEAKID", "OUTBOX_ACCESS_KEY_SECRET": "FAKESECRET"}

on_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"])


def built(database_url, endpoint, **more):
    given = {"OUTBOX_DATABASE_URL": database_url, "OUTBOX_ENDPOINT": endpoint, **KEYS, **more}
    return Runtime(Settings.from_mapping(given))


def drain(runtime):
    """Drain with a runtime, and close what it opened."""
    ending = runtime.drained(10)
    try:
        return runtime.relay().run(ending), ending.stalled
    finally:
        runtime.database.engine.dispose()


def test_runtime_drains_into_the_broker(engine, migrated_url, emulator):
    """What the settings build publishes every row, as it stands in the table."""
    write(engine, *(Message("orders", {"n": n}, tag="created", keys=f"order-{n}") for n in range(20)))
    counts, stalled = drain(built(migrated_url, emulator.url))
    sent = {row.message_id: (row.topic, row.tag, row.body) for row in rows(engine)}
    taken = {one["message_id"]: (one["topic"], one["tag"], one["body"]) for one in emulator.ledger()["messages"]}

    assert (counts.sent, stalled) == (20, False)
    assert sent == taken


@on_sqlite
@pytest.mark.parametrize("http_engine", ["requests", "curl"])
def test_one_sweep_uses_the_connections_of_the_one_before(engine, migrated_url, http_engine):
    """A worker's relay lives for a sweep, which may carry one message: it must not connect anew for each."""
    with Server() as server:
        runtime = built(migrated_url, server.url, OUTBOX_HTTP_ENGINE=http_engine)
        for number in range(3):
            write(engine, Message("orders", str(number)))
            runtime.relay().run(runtime.drained(10))
        runtime.close()

    assert {"sent"} == {row.state for row in rows(engine)}
    assert 1 == server.connections


@on_sqlite
def test_sweep_that_breaks_leaves_its_loop_to_no_other(engine, migrated_url, emulator, monkeypatch):
    """What has gone wrong in one sweep does not go wrong in all that follow."""
    runtime = built(migrated_url, emulator.url, OUTBOX_HTTP_ENGINE="curl")
    broken = []

    def break_once(loop, timeout_s=None):
        broken.append(loop)
        monkeypatch.undo()
        raise ValueError("broken")

    monkeypatch.setattr(CurlLoop, "step", break_once)
    write(engine, Message("orders", "1", ordering_key="a"))
    with pytest.raises(ValueError, match="broken"):
        runtime.relay().run(runtime.drained(5))
    write(engine, Message("orders", "2"))
    runtime.relay().run(runtime.drained(5))
    runtime.close()

    assert 1 == len(broken)
    assert ["2"] == [row.body for row in rows(engine, state="sent")]


@on_sqlite
def test_schedule_within_the_horizon_is_sent_now_and_a_later_one_waits(engine, migrated_url, emulator):
    """The broker holds what is scheduled inside its horizon; what lies beyond waits in the outbox."""
    soon, late = (datetime.now(UTC) + timedelta(days=days) for days in (1, 50))
    write(
        engine,
        Message("later", "soon", deliver_at=soon),
        Message("later", "late", deliver_at=late),
        horizon_s=3_452_400,
    )
    counts, stalled = drain(built(migrated_url, emulator.url))
    (taken,) = emulator.ledger()["messages"]

    assert (counts.sent, stalled) == (1, False)
    assert taken["body"] == "soon"
    assert taken["properties"]["__STARTDELIVERTIME"] == str(int(soon.timestamp() * 1000))
    assert [("soon", "sent", 1), ("late", "pending", 0)] == [(r.body, r.state, r.attempts) for r in rows(engine)]


@on_sqlite
def test_named_destinations_have_their_own_keys_and_instance(engine, migrated_url, emulator):
    """Each destination is served under its own settings."""
    emulator.change_keys({"OTHERAKID": "OTHERSECRET"})
    second = {
        "endpoint": emulator.url,
        "instance_id": "MQ_INST_2",
        "access_key_id": "OTHERAKID",
        "access_key_secret": "OTHERSECRET",
    }
    write(engine, Message("orders", "first"), Message("orders", "second", destination="second"))
    drain(built(migrated_url, emulator.url, OUTBOX_DESTINATIONS=json.dumps({"second": second})))

    assert {("first", ""), ("second", "MQ_INST_2")} == {
        (one["body"], one["ns"] or "") for one in emulator.ledger()["messages"]
    }


@on_sqlite
def test_sweep_waits_no_longer_than_told(migrated_url, emulator):
    """A sweep of an empty outbox ends at once, nudged or not."""
    for nudged in (False, True):
        runtime = built(migrated_url, emulator.url)
        counts = runtime.relay().run(runtime.swept(0, nudged=nudged))
        runtime.database.engine.dispose()

        assert counts.finished == 0


def test_runtime_opens_nothing_before_it_is_used():
    """Each part asks for its settings when it is first needed."""
    runtime = Runtime(Settings.from_mapping({}))

    with pytest.raises(ConfigError, match="OUTBOX_DATABASE_URL"):
        _ = runtime.database
    with pytest.raises(ConfigError, match="OUTBOX_ENDPOINT"):
        _ = runtime.publishers
