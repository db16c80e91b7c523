"""The outbox that people build by hand: after the commit one Celery task for each row, which publishes and marks it.

Written as well as it allows: each worker process keeps its connections, and no transaction waits for the broker.
"""

import os
from functools import cache
from typing import Any

from celery import Celery
from mq_http_sdk.mq_client import MQClient
from mq_http_sdk.mq_producer import TopicMessage
from sqlalchemy import Engine, create_engine, text

app = Celery("per_row", broker=os.environ["PER_ROW_BROKER"])
app.conf.update(task_ignore_result=True, task_acks_late=True, worker_prefetch_multiplier=64)

_READ = text("SELECT body FROM outbox_messages WHERE id = :id AND state = 'pending'")
_MARK = text("UPDATE outbox_messages SET state = 'sent', message_id = :message_id, sent_at = now() WHERE id = :id")


@cache
def engine() -> Engine:
    """One for each worker process."""
    return create_engine(os.environ["PER_ROW_DATABASE"])


@cache
def producer() -> Any:
    """One connection for each worker process."""
    return MQClient(os.environ["PER_ROW_ENDPOINT"], "FAKEAKID", "FAKESECRET").get_producer("", "orders")


@app.task
def publish(row_id: int) -> None:
    """Publish one row, and mark it sent."""
    with engine().begin() as connection:
        body = connection.execute(_READ, {"id": row_id}).scalar()
    if body is None:
        return
    message = TopicMessage(body)
    message.set_message_key("k")
    published = producer().publish_message(message)
    with engine().begin() as connection:
        connection.execute(_MARK, {"id": row_id, "message_id": published.message_id})
