"""What a process of a Django project loads for the outbox: what enqueues, and nothing of what relays."""

import subprocess
import sys

PROGRAM = """
import sys

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="x",
    INSTALLED_APPS=["outbox.django", "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes",
                    "django.contrib.messages", "django.contrib.sessions"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
django.setup()
from django.contrib import admin
from outbox.django import enqueue
admin.autodiscover()
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_app_loads_no_relay():
    """Neither HTTP, Celery, Alembic nor a command line; nor templates of the pages, before somebody opens one."""
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    loaded = set(ran.stdout.split())

    assert {"django", "outbox", "sqlalchemy"} <= loaded, ran.stderr
    assert set() == loaded & {"alembic", "celery", "click", "flask", "jinja2", "kombu", "requests", "urllib3"}
