"""A Django project in the test's own process: configured once, pointed at the database of whichever test asks.

Django has one configuration a process. This one is not named by an environment variable, so that nothing that another
test starts, Celery above all, takes itself for a part of a Django project.
"""

import re
import shutil
import sys
from contextlib import contextmanager
from functools import cache
from html import unescape
from importlib import import_module

import pymysql
from django.conf import settings
from sqlalchemy import make_url

ENGINES = {"sqlite": "sqlite3", "postgresql": "postgresql", "mysql": "mysql"}


@cache
def set_up():
    """Configure Django and load the apps."""
    import django

    settings.configure(
        SECRET_KEY="a secret of the tests'",
        ALLOWED_HOSTS=["testserver"],
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.messages",
            "django.contrib.sessions",
            "django.contrib.staticfiles",
            "outbox.django",
        ],
        MIDDLEWARE=[
            "django.middleware.security.SecurityMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        ROOT_URLCONF="tests.django_urls",
        STATIC_URL="static/",
        USE_TZ=True,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "/nowhere/at-all"}},
        LOGGING_CONFIG=None,
        OUTBOX={},
    )
    _load_mysql_backend()
    django.setup()


def _load_mysql_backend():
    """With PyMySQL for a driver; nothing else in this process is to take it for mysqlclient."""
    pymysql.install_as_MySQLdb()
    import_module("django.db.backends.mysql.base")
    for name in [name for name in sys.modules if name.partition(".")[0] in {"MySQLdb", "_mysql"}]:
        del sys.modules[name]


def database_settings(url):
    """An entry of ``DATABASES`` for a URL of SQLAlchemy's."""
    url = make_url(url)
    return {
        "ENGINE": f"django.db.backends.{ENGINES[url.get_backend_name()]}",
        "NAME": url.database,
        "USER": url.username or "",
        "PASSWORD": url.password or "",
        "HOST": url.host or "",
        "PORT": url.port or "",
    }


@contextmanager
def django_databases(**urls):
    """Have Django's aliases lead to these databases, ``default`` among them, and close its connections after."""
    set_up()
    from django.db import connections

    before = dict(connections.databases)
    _point(connections, {alias: database_settings(url) for alias, url in urls.items()})
    try:
        yield
    finally:
        for alias in urls:
            connections[alias].close()
        _point(connections, before)


def _point(connections, databases):
    for alias in {*connections.databases, *databases}:
        if hasattr(connections._connections, alias):
            delattr(connections._connections, alias)
    connections.settings.clear()
    connections.settings.update(connections.configure_settings(databases))


@cache
def migrated_project(directory):
    """The path of a SQLite database with the tables of every app, made once in each process."""
    from django.core.management import call_command

    path = directory / "project.db"
    with django_databases(default=f"sqlite:///{path}"):
        call_command("migrate", verbosity=0)
    return path


class Operator:
    """A user of the admin with some of the outbox's rights, in a browser without scripts; None is nobody."""

    def __init__(self, name, rights=None, *, staff=True, superuser=False):
        from django.contrib.auth.models import Permission, User
        from django.test import Client

        self.client = Client(enforce_csrf_checks=True)
        if name is None:
            return
        self.user = User.objects.create(username=name, is_staff=staff, is_superuser=superuser)
        wanted = [f"{right}_outboxmessage" for right in rights or ()]
        self.user.user_permissions.set(Permission.objects.filter(codename__in=wanted, content_type__app_label="outbox"))
        self.client.force_login(self.user)

    def get(self, path="", **query):
        return self.client.get(f"{ADMIN}{path}", query)

    def text(self, path="", **query):
        """A page's text without tags, blanks squeezed."""
        return plain(self.get(path, **query))

    def token(self):
        """The token of this session, which every page of the admin makes."""
        if "csrftoken" not in self.client.cookies:
            self.client.get("/admin/", follow=True)
        return self.client.cookies["csrftoken"].value

    def post(self, path="", **fields):
        """Send a form, with its token unless another is given."""
        return self.client.post(f"{ADMIN}{path}", {"csrfmiddlewaretoken": self.token()} | fields)

    def act(self, do, **fields):
        """Send the form of the confirmation page."""
        return self.post("act/", do=do, **{"reason": "endpoint repaired"} | fields)


ADMIN = "/admin/outbox/outboxmessage/"


def plain(answer):
    """An answer's text without tags, blanks squeezed."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


@contextmanager
def admin_project(directory, source):
    """A project with a database of its own, a copy; yields its URL."""
    from outbox.django import connecting

    path = directory / "admin.db"
    shutil.copyfile(source, path)
    with django_databases(default=f"sqlite:///{path}"):
        try:
            yield f"sqlite:///{path}"
        finally:
            for database in connecting._made.values():
                database.engine.dispose()
            connecting._made.clear()
