"""Flask: the outbox's settings from the app's config, its command line under ``flask outbox``, and operators' pages.

::

    from outbox import Message, enqueue
    from outbox.flask import Outbox

    db = SQLAlchemy(app)
    outbox = Outbox(app, db, admin_auth=lambda request: name_of_whoever_is_signed_in_or_none())

    enqueue(db.session, Message("orders", {"id": 7}))  # before db.session.commit()
"""

from outbox.flask.access import AdminAuth, User
from outbox.flask.extension import Outbox, State

__all__ = ["AdminAuth", "Outbox", "State", "User"]
