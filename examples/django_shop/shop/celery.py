"""Celery as Django projects have it; and the outbox's tasks, with the project's settings."""

import os

from celery import Celery

from outbox.celery import install

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
install(app)
