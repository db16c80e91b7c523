"""Takes the pictures in docs/images: every operators' page, in light and dark, and on a phone.

``make screenshots`` runs it. It needs Chromium. The shop's hour is made up, with a fixed seed: orders come in, the
endpoint of the invoices goes away for a while, and a bad deploy has some of them refused.
"""

import math
import random
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from playwright.sync_api import Browser
from sqlalchemy import Connection, create_engine, insert, update

from outbox import admin, prepare_sqlite
from outbox.flask import Outbox
from outbox.migrate import upgrade
from outbox.store import pauses
from outbox.store.database import Database
from outbox.store.lanes import Lane
from outbox.table import attempts, audit, messages, outbox_ids_from
from tests.browsers import chromium, served
from tests.django_projects import admin_project, migrated_project, set_up

IMAGES = Path(__file__).parent / "images"

SHAPES = {
    "light": {"viewport": {"width": 1200, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1200, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 740}, "color_scheme": "light", "device_scale_factor": 1},
}
TOPICS = {"orders": 9, "shipments": 4, "emails": 6, "stock": 2, "invoices": 5}
# Minutes ago in which the endpoint of the invoices was away, and the emails paused.
AWAY = range(12, 25)
PAUSED = range(5)
WRONG = ("InvalidArgument", "The value of property CURRENCY is longer than 16 characters.")
LOST = ("Timeout", "no answer within 10 s")


class Hour:
    """The made-up hour before *now*."""

    def __init__(self, now: datetime, seed: int = 7) -> None:
        self.now = now
        self.rows: list[dict[str, Any]] = []
        self._chance = random.Random(seed)
        for minute in range(75):
            self._write_minute(minute)
        self.rows.sort(key=lambda row: row["created_at"])

    def _write_minute(self, minutes_ago: int) -> None:
        for topic, weight in TOPICS.items():
            busy = 1 + 0.5 * math.sin(minutes_ago / 9) + self._chance.uniform(-0.25, 0.25)
            for _ in range(round(weight * busy)):
                at = self.now - timedelta(minutes=minutes_ago, seconds=self._chance.uniform(0, 59))
                self._write(topic, at, minutes_ago)

    def _write(self, topic: str, at: datetime, minutes_ago: int) -> None:
        number = len(self.rows) + 1001
        outbox_id = f"{outbox_ids_from(at)}-7{self._chance.randrange(4096):03x}-8{self._chance.randrange(4096):03x}-"
        outbox_id += f"{self._chance.getrandbits(48):012x}"
        body = f'{{"id":{number},"customer":{number % 97},"total":"{self._chance.randrange(900, 22000) / 100}"}}'
        row = {"outbox_id": outbox_id, "destination": "default", "topic": topic, "tag": "created", "body": body}
        row |= {"keys": f"order-{number}", "properties": f"KEYS:order-{number}|outbox_id:{outbox_id}|"}
        row |= {"body_bytes": len(body), "created_at": at, "available_at": at, "attempts": 1, "last_error": None}
        self.rows.append(row | {"last_error_code": None} | self._fate(topic, at, minutes_ago))

    def _fate(self, topic: str, at: datetime, minutes_ago: int) -> dict[str, Any]:
        if topic == "invoices" and minutes_ago in AWAY:
            if self._happens(0.35):
                return {"state": "failed", "last_error_code": WRONG[0], "last_error": WRONG[1]} | _NOT_SENT
            back = self.now - timedelta(minutes=11) + timedelta(seconds=self._chance.uniform(0, 150))
            return self._sent(back)
        if topic == "emails" and minutes_ago in PAUSED:
            return {"state": "pending", "attempts": 0} | _NOT_SENT
        if topic == "shipments" and self._happens(0.012):
            return {"state": "failed", "attempts": 10, "last_error_code": LOST[0], "last_error": LOST[1]} | _NOT_SENT
        return self._sent(at + timedelta(milliseconds=self._chance.uniform(8, 900)))

    def _happens(self, how_often: float) -> bool:
        return self._chance.random() < how_often

    def _sent(self, at: datetime) -> dict[str, Any]:
        if at > self.now:
            return {"state": "pending", "attempts": 0} | _NOT_SENT
        return {"state": "sent", "sent_at": at, "message_id": f"{self._chance.getrandbits(128):032X}"}


_MINUTES_AGO = {"pause": 14, "replay": 9, "discard": 6, "view_body": 3}
_NOT_SENT = {"sent_at": None, "message_id": None}


def write_hour(connection: Connection, now: datetime) -> None:
    """Fill the tables."""
    hour = Hour(now)
    connection.execute(insert(messages), hour.rows)
    failed = [(n, row) for n, row in enumerate(hour.rows, start=1) if row["state"] == "failed"]
    tries = []
    for row_id, row in failed:
        for number in range(row["attempts"]):
            is_lost = row["last_error_code"] == LOST[0]
            at = row["created_at"] + timedelta(seconds=1 + (1.3**number if is_lost else 0))
            tries.append(_try(row_id, at, LOST if is_lost else WRONG, is_lost=is_lost))
    connection.execute(insert(attempts), sorted(tries, key=lambda one: one["at"]))


def _try(row_id: int, at: datetime, fault: tuple[str, str], *, is_lost: bool) -> dict[str, Any]:
    code, text = fault
    answer = {"http_status": None, "request_id": None} if is_lost else {"http_status": 400, "request_id": "5E2F-90AB"}
    return {"message_row_id": row_id, "at": at, "code": code, "text": text, "outcome_known": not is_lost} | answer


def act(database: Database, now: datetime) -> None:
    """What operators did in that hour."""
    lane = Lane("default", "emails")
    pauses.pause(database, lane, by="ann", reason="the mail consumer is being moved")
    failed = admin.search(database, admin.parse_filter({"state": "failed", "topic": "invoices"}), limit=9)
    selected = [admin.target_text(row) for row in failed.rows]
    admin.act_on_selected(database, "replay", selected[:6], by="ben", reason="consumer rolled back, trying a few")
    admin.act_on_selected(database, "discard", selected[6:8], by="ann", reason="test orders of the night shift")
    admin.view_body(database, failed.rows[8]["id"], by="ben")
    # What has just been done was done a while ago.
    with database.engine.begin() as connection:
        rows = connection.execute(audit.select().order_by(audit.c.id)).all()
        for row in rows:
            ago = timedelta(minutes=_MINUTES_AGO[row.action])
            connection.execute(update(audit).where(audit.c.id == row.id).values(at=now - ago))
        replayed = update(messages).where(messages.c.state == "pending", messages.c.topic == "invoices")
        done = {"state": "sent", "sent_at": now - timedelta(minutes=8), "message_id": "0A" * 16, "attempts": 1}
        connection.execute(replayed.values(done))


def make_shop(directory: Path) -> Flask:
    """The pages of the made-up shop."""
    app = Flask("shop")
    app.config["SECRET_KEY"] = secrets.token_hex()
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{directory / 'shop.sqlite'}"
    db = SQLAlchemy(app)
    Outbox(app, db, admin_auth=lambda _request: "ben")
    with app.app_context():
        upgrade(db.engine)
        now = datetime.now(UTC)
        with db.engine.begin() as connection:
            write_hour(connection, now)
        act(Database(db.engine), now)
    return app


def take(browser: Browser, url: str, shape: str, directory: Path) -> None:
    """Every page in one shape."""
    page = browser.new_context(**SHAPES[shape]).new_page()

    def picture(name: str, *, whole: bool = True) -> None:
        page.screenshot(path=directory / f"{name}-{shape}.png", full_page=whole)

    for name, path in {"overview": "/", "messages": "/messages?state=failed", "failed": "/failed"}.items():
        page.goto(f"{url}{path}")
        picture(name, whole=name != "messages")
    page.get_by_role("button", name="Replay all").first.click()
    picture("confirm")
    page.goto(f"{url}/messages?state=failed&topic=invoices")
    page.locator("td a").first.click()
    picture("message")
    for name in ("pauses", "audit"):
        page.goto(f"{url}/{name}")
        picture(name)
    page.context.close()


def take_in_django(browser: Browser, url: str, session: str, shape: str, directory: Path) -> None:
    """The pages that look different in Django's admin."""
    context = browser.new_context(**SHAPES[shape])
    context.add_cookies([{"name": "sessionid", "value": session, "url": url}])
    page = context.new_page()
    for name, path in {"messages": "?state=failed", "overview": "overview/", "failed": "failed/"}.items():
        page.goto(f"{url}/admin/outbox/outboxmessage/{path}")
        page.screenshot(path=directory / f"django-{name}-{shape}.png", full_page=name != "messages")
    page.get_by_role("button", name="Replay all").first.click()
    page.get_by_label("Reason").wait_for()
    page.screenshot(path=directory / f"django-confirm-{shape}.png", full_page=True)
    page.goto(f"{url}/admin/outbox/outboxmessage/?state=failed&topic=invoices")
    page.locator(".ob-table td a").first.click()
    page.screenshot(path=directory / f"django-message-{shape}.png", full_page=True)
    context.close()


@contextmanager
def django_shop(directory: Path) -> Iterator[tuple[str, str]]:
    """The made-up shop on Django, and a session of somebody who may do everything."""
    set_up()
    from django.contrib.auth.models import User  # noqa: PLC0415 - Django must be set up first
    from django.contrib.staticfiles.handlers import StaticFilesHandler  # noqa: PLC0415 - likewise
    from django.core.handlers.wsgi import WSGIHandler  # noqa: PLC0415 - likewise
    from django.test import Client, override_settings  # noqa: PLC0415 - likewise

    with (
        admin_project(directory, migrated_project(directory)) as database,
        override_settings(ALLOWED_HOSTS=["127.0.0.1"]),
    ):
        engine = create_engine(database)
        prepare_sqlite(engine)
        now = datetime.now(UTC)
        with engine.begin() as connection:
            write_hour(connection, now)
        act(Database(engine), now)
        engine.dispose()
        client = Client()
        client.force_login(User.objects.create(username="ben", is_staff=True, is_superuser=True))
        with served(StaticFilesHandler(WSGIHandler())) as url:
            yield url, client.cookies["sessionid"].value


def main(directory: Path) -> None:
    """Take all pictures into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, django_shop(Path(place)) as (url, session), chromium() as browser:
        for shape in SHAPES:
            take_in_django(browser, url, session, shape, directory)
    with tempfile.TemporaryDirectory() as place, served(make_shop(Path(place))) as url, chromium() as browser:
        for shape in SHAPES:
            take(browser, f"{url}/outbox", shape, directory)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES)
