"""A Django project in the test's own process: configured once, pointed at the database of whichever test asks.

Django has one configuration a process. This one is not named by an environment variable, so that nothing that another
test starts, Celery above all, takes itself for a part of a Django project.
"""

from contextlib import contextmanager
from functools import cache

import pymysql
from django.conf import settings
from sqlalchemy import make_url

ENGINES = {"sqlite": "sqlite3", "postgresql": "postgresql", "mysql": "mysql"}


@cache
def set_up():
    """Configure Django and load the apps."""
    import django

    pymysql.install_as_MySQLdb()
    settings.configure(
        SECRET_KEY="a secret of the tests'",
        ALLOWED_HOSTS=["testserver"],
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.messages",
            "django.contrib.sessions",
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
    django.setup()


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
