"""A shop on Django: orders, two messages for each in the order's own transaction, and the operators' pages.

``python run.py`` starts it with everything that it needs. Celery's application is imported here, so that a commit in
any process of the shop nudges its workers.
"""

from shop.celery import app as celery_app

__all__ = ["celery_app"]
