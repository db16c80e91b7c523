"""The shop: an application that commits orders, and enqueues a message in the same transaction as each."""

import random
import threading
import time
from itertools import islice
from typing import Self

from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from outbox import Message, enqueue, prepare_sqlite

__all__ = ["Shop"]

#: Topic of the orders that are independent of each other.
ORDERS = "orders"
#: Topic of those that belong to a customer, published in order for each.
BY_CUSTOMER = "orders-by-customer"


class _Base(DeclarativeBase):
    pass


class _Order(_Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    cents: Mapped[int]


class _PaymentRefusedError(Exception):
    """The customer's bank says no, and the transaction rolls back."""


class Shop:
    """Takes orders, one transaction each.

    Args:
        url: of the database, which is the outbox's too.
        seed: decides about amounts, and about who pays.
        orders: how many orders there are to take.
        refused: how many of them are rolled back, since the customer's bank says no.
        customers: every third order is one of theirs, in turn, and is published in order for each.

    Attributes:
        committed: the key of each committed order, and when, in epoch seconds.
        rolled_back: the keys of the others.
    """

    def __init__(self, url: str, seed: int, *, orders: int, refused: int, customers: int) -> None:
        self.committed: dict[str, float] = {}
        self.rolled_back: set[str] = set()
        self._chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._refused = frozenset(self._chance.sample(range(orders), refused))
        self._customers = customers
        self._numbers = iter(range(orders))
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._engine = create_engine(url)
        prepare_sqlite(self._engine)

    def __enter__(self) -> Self:
        _Base.metadata.create_all(self._engine)
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        if self._thread:
            self._thread.join()
        self._engine.dispose()

    def take(self, orders: int) -> None:
        """Take so many orders at once."""
        for number in islice(self._numbers, orders):
            self._take(number)

    def open(self, a_second: float) -> None:
        """Have the rest of the orders taken by a thread, so many within one second as far as the machine can."""
        self._thread = threading.Thread(target=self._take_all, args=(a_second,), name="shop")
        self._thread.start()

    @property
    def is_open(self) -> bool:
        """Whether orders are still to come. Raises what ended the thread before its time."""
        if self._error is not None:
            raise self._error
        return self._thread is not None and self._thread.is_alive()

    def _take_all(self, a_second: float) -> None:
        opened = time.monotonic()
        try:
            for taken, number in enumerate(self._numbers):
                if self._closing.wait(max(0.0, opened + taken / a_second - time.monotonic())):
                    return
                self._take(number)
        except BaseException as error:  # noqa: BLE001 - raised again where the shop is watched
            self._error = error

    def _take(self, number: int) -> None:
        key = f"order-{number:04}"
        order = _Order(id=number, cents=self._chance.randrange(100, 100_000))
        try:
            with Session(self._engine) as session, session.begin():
                session.add(order)
                enqueue(session, self._message(order, key))
                self._charge(order)
        except _PaymentRefusedError:
            self.rolled_back.add(key)
        else:
            self.committed[key] = time.time()

    def _message(self, order: _Order, key: str) -> Message:
        body = {"order": order.id, "cents": order.cents}
        if order.id % 3:
            return Message(ORDERS, body, tag="created", keys=key)
        customer = f"customer-{order.id // 3 % self._customers:02}"
        return Message(BY_CUSTOMER, body, tag="created", keys=key, ordering_key=customer)

    def _charge(self, order: _Order) -> None:
        if order.id in self._refused:
            raise _PaymentRefusedError
