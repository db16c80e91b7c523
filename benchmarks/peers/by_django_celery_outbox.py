"""The relay of django-celery-outbox, with a publisher that POSTs to the sink where its own sends a Celery task.

::

    python -m benchmarks.peers.by_django_celery_outbox DATABASE_URL SINK_URL MESSAGES AT_ONCE

Claim, threads, and the deletion of what is sent are its own, as its command `celery_outbox_relay` runs them. Left out
is what it has besides: its logs, statsd, and the Celery worker that would take the tasks and send the messages. It asks
for 500 rows at a time, as ours does.
"""

import json
import logging
import os
import signal
import sys
import threading
import time
from typing import Any
from uuid import uuid4

import django
import structlog
from celery import Celery
from django.conf import settings
from django.core.management import call_command
from mq_http_sdk.mq_client import MQClient
from mq_http_sdk.mq_producer import TopicMessage
from sqlalchemy import make_url

from benchmarks.sinks import BODY

BATCH = 500


def configure(database_url: str) -> None:
    """A Django project of these two applications."""
    url = make_url(database_url)
    places = {"HOST": url.host, "PORT": url.port, "USER": url.username, "PASSWORD": url.password or ""}
    settings.configure(
        DATABASES={
            "default": {"ENGINE": "django.db.backends.postgresql", "NAME": url.database, "CONN_MAX_AGE": None} | places
        },
        INSTALLED_APPS=["django_celery_outbox"],
        USE_TZ=True,
        CELERY_OUTBOX_APP=f"{__name__}.app",
        MONITORING_METRICS_ENABLED=False,
    )
    django.setup()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


def fill(count: int) -> None:
    """Rows as its Celery application writes them."""
    from django_celery_outbox.models import CeleryOutbox  # noqa: PLC0415 - only once Django is set up

    call_command("migrate", verbosity=0)
    CeleryOutbox.objects.all().delete()
    rows = (CeleryOutbox(task_id=str(uuid4()), task_name="publish", args=[BODY]) for _ in range(count))
    CeleryOutbox.objects.bulk_create(rows, batch_size=BATCH)


class Poster:
    """Sends one message by the official SDK, which has one connection for each thread.

    Args:
        url: the sink's.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._own = threading.local()
        self._first = threading.Lock()

    def __call__(self, body: str) -> None:
        """POST it. After the first the relay is told to end, which it does once nothing is left."""
        if self._first.acquire(blocking=False):
            os.kill(os.getpid(), signal.SIGTERM)
        if not hasattr(self._own, "producer"):
            self._own.producer = MQClient(self._url, "FAKEAKID", "FAKESECRET").get_producer("", "orders")
        message = TopicMessage(body)
        message.set_message_key("k")
        self._own.producer.publish_message(message)


def relay(url: str, at_once: int) -> Any:
    """Its relay, whose publisher posts."""
    from django_celery_outbox.relay import Relay, RelayConfig  # noqa: PLC0415 - only once Django is set up
    from django_celery_outbox.relay._publisher import PreparedPublishCall, RelayPublisher  # noqa: PLC0415

    post = Poster(url)

    class Publisher(RelayPublisher):
        def publish_prepared(self, call: PreparedPublishCall) -> None:
            post(call.args[0])

    app = Celery(broker="memory://")
    config = RelayConfig.init(batch_size=BATCH, idle_time=0.0, publish_concurrency=at_once, shutdown_timeout=600.0)
    made = Relay(app=app, config=config)
    made._publisher = Publisher(app, send_timeout=10.0)  # noqa: SLF001 - there is no other way in
    return made


def main(database_url: str, url: str, count: int, at_once: int) -> None:
    """Fill, drain, and tell the seconds and the seconds of CPU that draining took."""
    configure(database_url)
    fill(count)
    from django_celery_outbox.models import CeleryOutbox  # noqa: PLC0415 - only once Django is set up

    started, cpu = time.monotonic(), time.process_time()
    relay(url, at_once).start()
    used = {"seconds": time.monotonic() - started, "cpu_s": time.process_time() - cpu}
    if CeleryOutbox.objects.exists():
        raise SystemExit("django-celery-outbox left rows behind")
    print(json.dumps(used))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
