"""A transactional outbox for Django and Flask applications that publish to RocketMQ over its HTTP API.

This is the enqueuing side, all that an application's process needs: no HTTP code, no endpoint, no keys::

    from outbox import Message, enqueue

    with Session(engine) as session, session.begin():
        session.add(order)
        enqueue(session, Message("orders", {"id": order.id}, tag="created", keys=f"order-{order.id}"))
"""

from importlib.metadata import version

from outbox.enqueue import enqueue, enqueue_async
from outbox.errors import ConfigError, DatabaseError, EnqueueError, MessageError, OperationError, OutboxError
from outbox.message import Message
from outbox.sqlite import prepare_sqlite

__all__ = [
    "ConfigError",
    "DatabaseError",
    "EnqueueError",
    "Message",
    "MessageError",
    "OperationError",
    "OutboxError",
    "enqueue",
    "enqueue_async",
    "prepare_sqlite",
]

__version__ = version("rocketmq-outbox")
