"""An order and its message, in one transaction."""

import os

from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from outbox import Message, enqueue, prepare_sqlite


class Base(DeclarativeBase):
    """The shop's tables."""


class Order(Base):
    """What a customer wants."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]


engine = create_engine(os.environ["OUTBOX_DATABASE_URL"])
if engine.dialect.name == "sqlite":
    prepare_sqlite(engine)  # SQLite's own transactions need it; no other database does
Base.metadata.create_all(engine)

with Session(engine) as session, session.begin():
    order = Order(item="a book")
    session.add(order)
    session.flush()  # gives the order its id
    message = Message("orders", {"id": order.id, "item": order.item}, tag="created", keys=f"order-{order.id}")
    enqueue(session, message)
