"""The outbox's tables, at the first revision of their schema."""

from django.db import migrations, models

from outbox.django.operations import Revision


class Migration(migrations.Migration):
    """The models are Django's, the tables are made by the statements that ``outbox migrate`` runs."""

    initial = True
    dependencies = ()
    operations = (
        Revision("0001", before="base"),
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.CreateModel(
                    name="OutboxAttempt",
                    fields=[
                        ("id", models.BigAutoField(primary_key=True, serialize=False)),
                        ("message_row_id", models.BigIntegerField()),
                        ("at", models.DateTimeField()),
                        ("code", models.CharField(max_length=64)),
                        ("http_status", models.IntegerField(null=True)),
                        ("request_id", models.CharField(max_length=64, null=True)),
                        ("text", models.TextField()),
                        ("outcome_known", models.BooleanField()),
                    ],
                    options={
                        "db_table": "outbox_attempts",
                        "default_permissions": (),
                    },
                ),
                migrations.CreateModel(
                    name="OutboxAudit",
                    fields=[
                        ("id", models.BigAutoField(primary_key=True, serialize=False)),
                        ("at", models.DateTimeField()),
                        ("by", models.CharField(max_length=150)),
                        ("action", models.CharField(max_length=32)),
                        ("outbox_id", models.CharField(max_length=36, null=True)),
                        ("destination", models.CharField(max_length=64, null=True)),
                        ("topic", models.CharField(max_length=64, null=True)),
                        ("keys", models.TextField(null=True)),
                        ("reason", models.TextField()),
                    ],
                    options={
                        "db_table": "outbox_audit",
                        "default_permissions": (),
                    },
                ),
                migrations.CreateModel(
                    name="OutboxCheck",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "checker",
                                "destination",
                                "topic",
                                "group_id",
                                blank=True,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        ("checker", models.CharField(max_length=64)),
                        ("destination", models.CharField(max_length=64)),
                        ("topic", models.CharField(max_length=64)),
                        ("group_id", models.CharField(max_length=64)),
                        ("mark", models.CharField(max_length=16)),
                        ("marked_at", models.DateTimeField()),
                        ("open_until", models.DateTimeField(null=True)),
                        ("succeeded_at", models.DateTimeField(null=True)),
                        ("canary_outbox_id", models.CharField(max_length=36, null=True)),
                        ("canary_posted_at", models.DateTimeField(null=True)),
                        ("canary_offered_at", models.DateTimeField(null=True)),
                        ("canary_check_s", models.IntegerField(null=True)),
                        ("canary_after", models.DateTimeField(null=True)),
                        ("canary_failures", models.IntegerField()),
                    ],
                    options={
                        "db_table": "outbox_checks",
                        "default_permissions": (),
                    },
                ),
                migrations.CreateModel(
                    name="OutboxMessage",
                    fields=[
                        ("id", models.BigAutoField(primary_key=True, serialize=False)),
                        ("outbox_id", models.CharField(max_length=36)),
                        ("destination", models.CharField(max_length=64)),
                        ("topic", models.CharField(max_length=64)),
                        ("tag", models.CharField(max_length=64, null=True)),
                        ("keys", models.TextField(null=True)),
                        ("properties", models.TextField()),
                        ("ordering_key", models.CharField(max_length=255, null=True)),
                        ("deduplication_key", models.CharField(max_length=255, null=True)),
                        ("deliver_at", models.DateTimeField(null=True)),
                        ("transaction_check_s", models.IntegerField(null=True)),
                        ("body", models.TextField()),
                        ("body_bytes", models.IntegerField()),
                        ("state", models.CharField(max_length=16)),
                        ("available_at", models.DateTimeField()),
                        ("lease_until", models.DateTimeField(null=True)),
                        ("lease_token", models.CharField(max_length=36, null=True)),
                        ("attempts", models.IntegerField()),
                        ("crashes", models.IntegerField()),
                        ("unknown_outcomes", models.IntegerField()),
                        ("message_id", models.CharField(max_length=128, null=True)),
                        ("posted_at", models.DateTimeField(null=True)),
                        ("sent_at", models.DateTimeField(null=True)),
                        ("confirmed_by", models.CharField(max_length=16, null=True)),
                        ("heard_at", models.DateTimeField(null=True)),
                        ("reoffered_at", models.DateTimeField(null=True)),
                        ("last_error_code", models.CharField(max_length=64, null=True)),
                        ("last_error", models.TextField(null=True)),
                        ("replays", models.IntegerField()),
                        ("created_at", models.DateTimeField()),
                    ],
                    options={
                        "verbose_name": "message",
                        "db_table": "outbox_messages",
                        "permissions": (
                            ("view_body_outboxmessage", "Can see bodies of messages"),
                            ("replay_outboxmessage", "Can replay messages"),
                            ("discard_outboxmessage", "Can discard messages"),
                            ("force_outboxmessage", "Can force what may publish twice or forget"),
                            ("pause_outboxmessage", "Can pause and resume topics"),
                        ),
                        "default_permissions": ("view",),
                    },
                ),
                migrations.CreateModel(
                    name="OutboxMeta",
                    fields=[
                        ("id", models.IntegerField(primary_key=True, serialize=False)),
                        ("origin", models.CharField(max_length=36)),
                        ("environment", models.CharField(max_length=64)),
                        ("bindings", models.TextField()),
                        ("created_at", models.DateTimeField()),
                    ],
                    options={
                        "db_table": "outbox_meta",
                        "default_permissions": (),
                    },
                ),
                migrations.CreateModel(
                    name="OutboxPause",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "destination",
                                "topic",
                                "automatic",
                                blank=True,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        ("destination", models.CharField(max_length=64)),
                        ("topic", models.CharField(max_length=64)),
                        ("automatic", models.BooleanField()),
                        ("until", models.DateTimeField(null=True)),
                        ("by", models.CharField(max_length=150)),
                        ("reason", models.TextField()),
                        ("failures", models.IntegerField()),
                        ("created_at", models.DateTimeField()),
                    ],
                    options={
                        "db_table": "outbox_pauses",
                        "default_permissions": (),
                    },
                ),
            ]
        ),
    )
