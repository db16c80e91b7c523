"""The three witnesses, asked while the story runs and in the end: the shop, the outbox, the broker's ledger."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from outbox.demo.shop import Shop
from outbox.demo.stage import Stage
from outbox.demo.verdict import KILLED, Delivery, Evidence, Row
from outbox.table import attempts, messages

__all__ = ["LEDGER", "Glance", "Witnesses"]

#: The file with the broker's ledger.
LEDGER = "ledger.json"


@dataclass(frozen=True, slots=True)
class Glance:
    """Where things stand.

    Attributes:
        committed: orders that the shop committed.
        rolled_back: orders that it rolled back.
        pending: rows that the relay still owes a publish.
        leased: those of them under a lease.
        delivered: messages that the broker has, each counted once.
        again: deliveries beyond the first of their message.
    """

    committed: int
    rolled_back: int
    pending: int
    leased: int
    delivered: int
    again: int

    @property
    def taken(self) -> int:
        """Orders that the shop is through with."""
        return self.committed + self.rolled_back


class Witnesses:
    """Asks the shop, the outbox and the broker's ledger."""

    def __init__(self, stage: Stage, shop: Shop) -> None:
        self._stage = stage
        self._shop = shop
        self._read = self._deliveries = 0
        self._delivered: set[str] = set()

    def glance(self) -> Glance:
        """Ask for numbers only."""
        new = self._stage.emulator.ledger(self._read, bodies=False)["messages"]
        self._read += len(new)
        self._deliveries += sum(one["visible"] for one in new)
        self._delivered.update(one["properties"]["outbox_id"] for one in new if one["visible"])
        # count(column) leaves nulls out.
        numbers = select(func.count(), func.count(messages.c.lease_token)).where(messages.c.state == "pending")
        pending, leased = self._stage.runtime.database.read(lambda connection: connection.execute(numbers).one())
        shop, delivered = self._shop, len(self._delivered)
        again = self._deliveries - delivered
        return Glance(len(shop.committed), len(shop.rolled_back), pending, leased, delivered, again)

    def evidence(self) -> Evidence:
        """Ask for everything; what the broker says is also left in the stage's directory."""
        ledger = self._stage.emulator.ledger()
        (self._stage.directory / LEDGER).write_text(json.dumps(ledger, indent=1, ensure_ascii=False))
        # What was accepted counts as often as consumers can see it.
        delivered = [_delivery(one) for one in ledger["messages"] for _ in range(one["visible"])]
        shop = self._shop
        return Evidence(dict(shop.committed), frozenset(shop.rolled_back), self._rows(), delivered)

    def _rows(self) -> Sequence[Row]:
        database = self._stage.runtime.database
        lost_answers = select(attempts.c.message_row_id, attempts.c.code).where(attempts.c.outcome_known.is_(False))
        unknowns: dict[int, list[str]] = {}
        for row_id, code in database.read(lambda connection: connection.execute(lost_answers).all()):
            unknowns.setdefault(row_id, []).append(code)
        query = select(messages).order_by(messages.c.id)
        rows = database.read(lambda connection: connection.execute(query).mappings().all())
        return [_row(dict(row), unknowns.get(row["id"], [])) for row in rows]


def _row(row: Mapping[str, Any], unknowns: list[str]) -> Row:
    properties = dict(pair.split(":", 1) for pair in row["properties"].split("|") if pair)
    return Row(
        key=row["keys"],
        outbox_id=row["outbox_id"],
        ordering_key=row["ordering_key"],
        content=(row["topic"], row["tag"], row["body"], properties),
        state=row["state"],
        message_id=row["message_id"],
        unknowns=(*unknowns, *[KILLED] * row["crashes"]),
        unknown_outcomes=row["unknown_outcomes"],
    )


def _delivery(one: Mapping[str, Any]) -> Delivery:
    properties = one["properties"]
    return Delivery(
        key=properties["KEYS"],
        outbox_id=properties["outbox_id"],
        message_id=one["message_id"],
        content=(one["topic"], one["tag"], one["body"], properties),
        at=one["at"],
    )
