"""The outbox's tables as Django's models, to be read; made of what `outbox.table` declares.

Rows come by `outbox.django.enqueue`, and change by the relay and by what operators do; so writing through a model is an
error that says what to do instead.
"""

from typing import Any, NoReturn

from django.db import models
from django.db.models.base import ModelBase
from sqlalchemy import BigInteger, Boolean, Column, Integer, String, Table, Text

from outbox import table
from outbox.table import Instant

__all__ = [
    "OutboxAttempt",
    "OutboxAudit",
    "OutboxCheck",
    "OutboxMessage",
    "OutboxMeta",
    "OutboxPause",
    "ReadOnlyError",
]

# The first kind that a column's type is one of.
_FIELDS: tuple[tuple[type[Any], type[Any]], ...] = (
    (Instant, models.DateTimeField),
    (Text, models.TextField),
    (String, models.CharField),
    (Boolean, models.BooleanField),
    (BigInteger, models.BigIntegerField),
    (Integer, models.IntegerField),
)


class ReadOnlyError(TypeError):
    """A model of the outbox was to be written."""

    def __init__(self) -> None:
        super().__init__(
            "the outbox's models are for reading: enqueue with outbox.django.enqueue(Message(…)); replay, discard and"
            " purge in the admin, or with manage.py outbox"
        )


class _ReadOnly(models.QuerySet):  # type: ignore[type-arg]  # Django's takes no parameter when it runs
    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise ReadOnlyError

    create = bulk_create = bulk_update = get_or_create = update_or_create = update = delete = _refuse


class _Read(models.Model):
    objects = _ReadOnly.as_manager()

    class Meta:
        abstract = True

    def save(self, *_: Any, **__: Any) -> NoReturn:
        """Never: raises `ReadOnlyError`."""
        raise ReadOnlyError

    def delete(self, *_: Any, **__: Any) -> NoReturn:
        """Never: raises `ReadOnlyError`."""
        raise ReadOnlyError


def _model(name: str, of: Table, doc: str, **meta: Any) -> Any:
    options = {"app_label": "outbox", "db_table": of.name, "default_permissions": (), **meta}
    fields = {column.name: _field(column) for column in of.columns}
    keys = [column.name for column in of.primary_key]
    if len(keys) > 1:
        fields = {"pk": models.CompositePrimaryKey(*keys)} | fields
    body = {"__module__": __name__, "__doc__": doc, "Meta": type("Meta", (), options)}
    return ModelBase(name, (_Read,), body | fields)


def _field(column: Column[Any]) -> Any:
    alone = column.primary_key and len(column.table.primary_key) == 1
    if alone and column.autoincrement is True:
        return models.BigAutoField(primary_key=True)
    kind = next(field for of, field in _FIELDS if isinstance(column.type, of))
    options: dict[str, Any] = {}
    if kind is models.CharField and isinstance(column.type, String):
        options["max_length"] = column.type.length
    options |= {"primary_key": True} if alone else {}
    return kind(null=True, **options) if column.nullable else kind(**options)


OutboxMessage = _model(
    "OutboxMessage",
    table.messages,
    "A message that the database promised to send.",
    verbose_name="message",
    default_permissions=("view",),
    permissions=(
        ("view_body_outboxmessage", "Can see bodies of messages"),
        ("replay_outboxmessage", "Can replay messages"),
        ("discard_outboxmessage", "Can discard messages"),
        ("force_outboxmessage", "Can force what may publish twice or forget"),
        ("pause_outboxmessage", "Can pause and resume topics"),
    ),
)
OutboxPause = _model("OutboxPause", table.pauses, "No claims in a lane, until a time or until it is resumed.")
OutboxAttempt = _model("OutboxAttempt", table.attempts, "A try that did not end well.")
OutboxAudit = _model("OutboxAudit", table.audit, "What an operator did.")
OutboxMeta = _model("OutboxMeta", table.meta, "Which database this is.")
OutboxCheck = _model("OutboxCheck", table.checks, "A checker's mark on a topic.")
