"""The promises held against the broker's ledger when a schedule has come to rest."""

from collections import Counter, defaultdict
from typing import Any

from outbox.states import TRANSITIONS
from tests.reliability.sim_broker import SimBroker
from tests.reliability.sim_database import SimDatabase

__all__ = ["Witness", "violations"]

Row = Any
Entries = dict[str, list[dict[str, Any]]]

_ALLOWED = {(one.source.value, one.target.value) for one in TRANSITIONS}


class Witness:
    """Judges what is decided about half messages at the instant of the decision, and whether it holds.

    Attributes:
        settled: how often each decision was seen. One by silence that was wrong is excused only where the half message
            was offered to a poll that arrived when nobody waited for it any more: such a poll is beyond all knowledge.
    """

    def __init__(self, broker: SimBroker) -> None:
        self._broker = broker
        self._wrong: list[str] = []
        self._failed: set[tuple[str, int]] = set()
        self.settled: Counter[str] = Counter()

    def see(self, change: Row) -> None:
        """A row has changed, and the change is committed."""
        if change["old_state"] == change["new_state"] or change["replays"] != change["old_replays"]:
            return
        if change["new_state"] == "failed":
            self.settled["failed"] += 1
            self._failed.add((change["outbox_id"], change["replays"]))
        elif change["confirmed_by"] == "silence" and change["new_state"] == "sent":
            self._see_silence(change["new_message_id"])

    def _see_silence(self, message_id: str) -> None:
        if any(one["visible"] for one in self._broker.ledger() if one["message_id"] == message_id):
            self.settled["silence"] += 1
        elif message_id in self._broker.unheard:
            self.settled["silence, and wrong, but excused"] += 1
        else:
            self._wrong.append(f"half {message_id} was settled by silence, and not committed")

    def violations(self) -> list[str]:
        """What was decided wrongly, or did not hold."""
        late = [
            f"half {one['message_id']} became visible, and its row had failed"
            for one in self._broker.ledger()
            if one["visible"] and (one["properties"].get("outbox_id"), _replay(one)) in self._failed
        ]
        return self._wrong + late


def _replay(entry: dict[str, Any]) -> int:
    return int(entry["properties"].get("outbox_replay", "0"))


def violations(database: SimDatabase, broker: SimBroker, rolled_back: set[str]) -> list[str]:
    """What was promised and not kept, one line each."""
    raw = database.raw
    kept = list(raw.execute("SELECT * FROM outbox_messages ORDER BY id"))
    gone = list(raw.execute("SELECT * FROM sim_gone ORDER BY id"))
    changes = list(raw.execute("SELECT * FROM sim_changes"))
    entries: Entries = defaultdict(list)
    for place, entry in enumerate(broker.ledger()):
        entry["place"] = place
        entries[entry["properties"].get("outbox_id", "")].append(entry)
    # A relay that keeps nothing deletes a pending row when it is sent.
    unkept = {row["outbox_id"] for row in gone if row["state"] == "pending"}
    rows = kept + gone
    found = [*_ghosts(rows, entries, rolled_back), *_disorder(rows, entries, changes)]
    forced = _forced_replays(changes)
    for row in rows:
        if row["outbox_id"] in unkept:
            found += _judge_unkept(row, entries[row["outbox_id"]], forced)
            continue
        judge = _judge_half if row["transaction_check_s"] is not None else _judge_normal
        text = f"row {row['id']} ({row['state']}, message_id {row['message_id']})"
        found += [f"{text}: {problem}" for problem in judge(row, entries[row["outbox_id"]], changes, forced)]
    found += [f"row {row['id']} is still leased" for row in kept if row["lease_token"] is not None]
    return found + _bad_changes(changes)


def _visible(entries: list[dict[str, Any]]) -> int:
    return sum(entry["visible"] for entry in entries)


def _forced_replays(changes: list[Row]) -> dict[str, int]:
    """How often a row was replayed that had been sent."""
    counts: dict[str, int] = defaultdict(int)
    for change in changes:
        if change["replays"] > change["old_replays"] and change["old_state"] in ("sent", "in_doubt"):
            counts[change["outbox_id"]] += 1
    return counts


def _judge_normal(row: Row, entries: list[dict[str, Any]], _changes: list[Row], forced: dict[str, int]) -> list[str]:
    found = _altered(row, entries)
    times = _visible(entries)
    if row["state"] == "sent":
        if row["message_id"] not in [entry["message_id"] for entry in entries]:
            found.append("sent, but the broker has no such message: lost")
        allowed = 1 + row["unknown_outcomes"] + forced[row["outbox_id"]]
    else:
        allowed = row["unknown_outcomes"] + forced[row["outbox_id"]]
    if times > allowed:
        found.append(f"published {times} times with {row['unknown_outcomes']} unknown outcomes")
    return found


def _judge_unkept(row: Row, entries: list[dict[str, Any]], forced: dict[str, int]) -> list[str]:
    found, times = _altered(row, entries), _visible(entries)
    if not 1 <= times <= 1 + row["unknown_outcomes"] + forced[row["outbox_id"]]:
        found.append(f"row {row['id']} (deleted when sent): published {times} times")
    return found


def _judge_half(row: Row, entries: list[dict[str, Any]], changes: list[Row], forced: dict[str, int]) -> list[str]:
    found = _altered(row, entries)
    committed: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        if entry["visible"]:
            committed[entry["properties"].get("outbox_replay", "0")].add(entry["message_id"])
        if entry["visible"] > 1:
            found.append(f"half {entry['message_id']} was committed {entry['visible']} times")
    found += [f"replay {replay}: {len(ids)} committed MessageIds" for replay, ids in committed.items() if len(ids) > 1]
    latest = committed.get(str(row["replays"]), set())
    if row["state"] == "sent" and latest != {row["message_id"]}:
        found.append(f"sent, but committed are {sorted(latest)}")
    if row["state"] == "discarded" and latest and ("failed", "discarded") in _last_steps(row, changes):
        found.append(f"failed and discarded, but committed are {sorted(latest)}")
    if row["state"] == "failed" and latest:
        found.append(f"failed, but committed are {sorted(latest)}")
    replayed_failed = sum(
        change["outbox_id"] == row["outbox_id"] and change["old_state"] == "failed" and change["new_state"] == "pending"
        for change in changes
    )
    if replayed_failed and not forced[row["outbox_id"]] and len(committed) > 1:
        found.append(f"published in the replays {sorted(committed)}, none of them forced")
    return found


def _last_steps(row: Row, changes: list[Row]) -> list[tuple[str, str]]:
    steps = [one for one in changes if one["outbox_id"] == row["outbox_id"] and one["replays"] == row["replays"]]
    return [(one["old_state"], one["new_state"]) for one in steps]


def _altered(row: Row, entries: list[dict[str, Any]]) -> list[str]:
    given = (row["topic"], row["tag"] or None, row["body"])
    return [
        f"the broker has {entry['message_id']} with other contents"
        for entry in entries
        if (entry["topic"], entry["tag"] or None, entry["body"]) != given
    ]


def _ghosts(rows: list[Row], entries: Entries, rolled_back: set[str]) -> list[str]:
    known = {row["outbox_id"] for row in rows}
    ghosts = [outbox_id for outbox_id in entries if outbox_id not in known and not _is_canary(entries[outbox_id])]
    found = [f"the broker has {outbox_id}, which is no row" for outbox_id in ghosts]
    return found + [f"{outbox_id} was rolled back and published" for outbox_id in rolled_back if outbox_id in entries]


def _is_canary(entries: list[dict[str, Any]]) -> bool:
    return not _visible(entries)


def _bad_changes(changes: list[Row]) -> list[str]:
    steps = [(change["old_state"], change["new_state"]) for change in changes]
    found = [
        f"table: a row went from {old} to {new}" for old, new in steps if old != new and (old, new) not in _ALLOWED
    ]
    elected: dict[tuple[str, int], str] = {}
    for change in changes:
        key = (change["outbox_id"], change["replays"])
        if change["new_message_id"] is None:
            continue
        if elected.setdefault(key, change["new_message_id"]) != change["new_message_id"]:
            found.append(f"table: replay {key[1]} of {key[0]} was decided twice")
    return found


def _disorder(rows: list[Row], entries: Entries, changes: list[Row]) -> list[str]:
    """Keys whose first deliveries are not in the order of the row ids, of rows no operator had a hand in."""
    touched = {change["outbox_id"] for change in changes if change["replays"] or change["new_state"] == "discarded"}
    keys: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for row in sorted(rows, key=lambda one: one["id"]):
        of_row = entries.get(row["outbox_id"])
        if row["ordering_key"] is not None and of_row and row["outbox_id"] not in touched:
            keys[row["topic"] + "/" + row["ordering_key"]].append((row["id"], min(one["place"] for one in of_row)))
    return [
        f"key {key} was delivered out of order: {firsts}"
        for key, firsts in keys.items()
        if firsts != sorted(firsts, key=lambda first: first[1])
    ]
