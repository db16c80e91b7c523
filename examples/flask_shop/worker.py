"""Where a Celery worker finds the shop's application: ``celery -A worker worker``."""

from shop import create_app

app = create_app().extensions["celery"]
