"""Flask applications such as a user's, and a client that fills in forms as a browser does."""

import re
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape

from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from outbox.flask import Outbox

_TOKEN = re.compile(r'name="csrf_token" value="([^"]+)"')


@contextmanager
def flask_app(url, *, admin_auth=None, name="shop", **config):
    """An app with Flask-SQLAlchemy on this database, and with the outbox; its connections are closed after."""
    app = Flask(name)
    app.config.update(
        {"SQLALCHEMY_DATABASE_URI": url, "SECRET_KEY": "a secret of the test's", "TESTING": True} | config
    )
    db = SQLAlchemy(app)
    Outbox(app, db, admin_auth=admin_auth)
    try:
        yield app
    finally:
        with app.app_context():
            for engine in db.engines.values():
                engine.dispose()


@dataclass(frozen=True)
class Role:
    """A user of the pages with some rights."""

    name: str
    rights: frozenset = frozenset()

    def can(self, act, /):
        return act in self.rights


class Pages:
    """A browser without scripts on the operators' pages."""

    def __init__(self, app):
        self.client = app.test_client()

    def get(self, path="/", **query):
        return self.client.get(f"/outbox{path}", query_string=query)

    def text(self, path="/", **query):
        """A page's text without tags, blanks squeezed."""
        return plain(self.get(path, **query))

    def token(self):
        """The token of a form on some page of this session."""
        for path in ("/pauses", "/messages", "/failed"):
            found = _TOKEN.search(self.get(path).text)
            if found:
                return unescape(found[1])
        return ""

    def post(self, path, **fields):
        """Send a form, with its token unless another is given."""
        return self.client.post(f"/outbox{path}", data={"csrf_token": self.token()} | fields)

    def act(self, do, **fields):
        """Send the form of the confirmation page."""
        return self.post("/act", do=do, **{"reason": "endpoint repaired"} | fields)

    def act_on_all(self, do, **fields):
        """Ask to act on all that match, and send the form that comes back; fields beside the filter's are typed in."""
        typed = {name: fields.pop(name) for name in ("force", "reason") if name in fields}
        asked = self.post("/confirm", do=f"{do} matching", **fields)
        return self.post("/act", **hidden(asked) | {"reason": "endpoint repaired"} | typed)


def hidden(answer):
    """The hidden fields of a page's form to act, but for its token."""
    fields = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', answer.text)
    return {name: unescape(value) for name, value in fields if "csrf" not in name}


def plain(answer):
    """An answer's text without tags, blanks squeezed."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())
