"""Django: the outbox as an app. Messages are enqueued through Django's own connection, in its own transaction.

::

    INSTALLED_APPS += ["outbox.django"]
    OUTBOX = {"ENDPOINT": "https://…", "ACCESS_KEY_ID": "…", "ACCESS_KEY_SECRET_FILE": "/run/secrets/key"}

    from outbox.django import Message, enqueue

    with transaction.atomic():
        order.save()
        enqueue(Message("orders", {"id": order.id}))

``manage.py migrate`` makes the tables, ``manage.py outbox …`` is the command line, and the pages for operators are in
the admin.
"""

from outbox.django.enqueuing import enqueue
from outbox.message import Message

__all__ = ["Message", "enqueue"]
