"""The shop's settings; what differs from place to place stands in the environment."""

import os
from pathlib import Path

HERE = Path(__file__).parent
DATA = Path(os.environ.get("SHOP_DIRECTORY", "."))

SECRET_KEY = os.environ.get("SHOP_SECRET_KEY", "not a secret")
DEBUG = True  # has runserver serve the admin's own style sheets
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
INSTALLED_APPS = [
    "outbox.django",
    "shop",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
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
]
ROOT_URLCONF = "shop.urls"
STATIC_URL = "static/"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA / "shop.sqlite",
        # A transaction that has read already could not go on to write beside the relay.
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
    }
}

_OUTBOX = ("ENDPOINT", "ACCESS_KEY_ID", "ACCESS_KEY_SECRET", "SWEEP_S")
OUTBOX = {name: os.environ.get(f"OUTBOX_{name}") for name in _OUTBOX}

# A broker in files needs no server; give Redis or RabbitMQ in its place.
CELERY_BROKER_URL = "filesystem://"
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "data_folder_in": str(DATA / "queue"),
    "data_folder_out": str(DATA / "queue"),
    "control_folder": str(DATA / "control"),
    "polling_interval": 0.1,
}
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_BEAT_SCHEDULE = {"report": {"task": "shop.tasks.report", "schedule": 60}}
