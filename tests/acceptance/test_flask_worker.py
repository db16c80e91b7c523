"""`flask outbox worker`: a Celery worker with beat, whose settings stand in the app's config alone."""

import os
import subprocess
import sys

import pytest

from outbox import Message, enqueue
from tests.celery_workers import wait_for
from tests.emulator_process import emulator_process
from tests.rows import states

SHOP = """
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from outbox.flask import Outbox

app = Flask("shop")
app.config.update({config!r})
db = SQLAlchemy(app)
Outbox(app, db)
with app.app_context():
    db.session.execute(db.text("SELECT 1"))  # a connection from before the pool forks
    db.session.remove()
"""


@pytest.mark.parametrize("database_kind", ["postgresql"])
@pytest.mark.parametrize("broker_url", ["redis"], indirect=True)
def test_flask_worker_relays(migrated_url, engine, broker_url, tmp_path):
    """A prefork worker of the app's settings publishes what is committed, and ends on SIGTERM without a lease."""
    log = tmp_path / "worker.log"
    with emulator_process() as broker:
        config = {
            "SQLALCHEMY_DATABASE_URI": migrated_url,
            "OUTBOX_BROKER_URL": broker_url,
            "OUTBOX_ENDPOINT": broker.url,
            "OUTBOX_ACCESS_KEY_ID": "FAKEAKID",
            "OUTBOX_ACCESS_KEY_SECRET": "FAKESECRET",
            "OUTBOX_SWEEP_S": 0.2,
        }
        (tmp_path / "shop.py").write_text(SHOP.format(config=config))
        command = [sys.executable, "-m", "flask", "--app", "shop", "outbox", "worker", "--concurrency", "2"]
        with (
            log.open("wb") as file,
            subprocess.Popen(command, cwd=tmp_path, env=dict(os.environ), stdout=file, stderr=file) as process,
        ):
            try:
                with engine.begin() as connection:
                    enqueue(connection, *(Message("orders", str(number)) for number in range(20)))
                arrived = wait_for(lambda: len(broker.ledger()["messages"]) == 20 or process.poll() is not None)
                process.terminate()
                code = process.wait(30)
            finally:
                process.kill()

    assert arrived, log.read_text()
    assert (0, {"sent"}) == (code, set(states(engine).values())), log.read_text()


def test_flask_worker_without_a_broker(tmp_path):
    """Without a broker's URL in the config it says so, in a line."""
    config = {"SQLALCHEMY_DATABASE_URI": f"sqlite:///{tmp_path / 'shop.sqlite'}"}
    (tmp_path / "shop.py").write_text(SHOP.format(config=config))
    command = [sys.executable, "-m", "flask", "--app", "shop", "outbox", "worker"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert 1 == ran.returncode
    assert ran.stderr.startswith("error: OUTBOX_BROKER_URL: missing")
