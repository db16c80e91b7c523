"""Secrets no one could mistake are planted, everything is made to talk, and what it said is searched for them."""

import json
import re
import subprocess
import sys
import uuid
from base64 import b64decode
from pathlib import Path

import pytest
import redis
from sqlalchemy import MetaData, create_engine, make_url, select, text

from tests.celery_workers import wait_for, worker
from tests.integration.fault_proxy import Server, answer_bytes
from tests.reliability.relays import settings

ROOT = str(Path(__file__).parents[2])
SECRET, TOKEN, PASSWORD, HANDLE = (
    f"c4n4ry{name}{uuid.uuid4().hex}" for name in ("Secret", "Token", "Password", "Handle")
)
CANARIES = {"AccessKeySecret": SECRET, "security token": TOKEN, "password": PASSWORD, "receipt handle": HANDLE}

# The command line with every logger at DEBUG, and every field of every record shown; many commands in one process. What
# escapes a command is shown as an error tracker shows it: with the variables of every frame but this program's own.
LOUD = """
import json, logging, os, signal, sys, traceback

class Everything(logging.Formatter):
    def format(self, record):
        return f"{super().format(record)} {vars(record)!r}"

handler = logging.StreamHandler()
handler.setFormatter(Everything())
logging.basicConfig(level=logging.DEBUG, handlers=[handler])
from outbox.cli import program
logging.getLogger("sqlalchemy").setLevel(logging.DEBUG)

class TimeLimit(BaseException):
    pass

def stop(*_):
    raise TimeLimit

signal.signal(signal.SIGALRM, stop)
environment = dict(os.environ)
for arguments, changes in json.load(sys.stdin):
    os.environ.clear()
    os.environ.update({key: value for key, value in (environment | changes).items() if value is not None})
    print("$ outbox", *arguments, flush=True)
    signal.setitimer(signal.ITIMER_REAL, float(os.environ.get("STOP_AFTER_S", 0)))
    try:
        program.main(arguments, prog_name="outbox")
    except SystemExit as end:
        print("exit", end.code, flush=True)
    except BaseException as error:
        shown = traceback.TracebackException(type(error), error, error.__traceback__.tb_next, capture_locals=True)
        print(*shown.format(), flush=True)
"""

# An application that enqueues, whose nudge nobody has read yet.
SHOP = """
import logging, os, time
import redis
logging.basicConfig(level=logging.DEBUG)
from sqlalchemy import create_engine
from outbox import Message, enqueue
from outbox.celery import app

app.finalize()
engine = create_engine(os.environ["OUTBOX_DATABASE_URL"])
with engine.begin() as connection:
    enqueue(connection, Message("good", "from the shop"))
while not redis.Redis.from_url(os.environ["OUTBOX_BROKER_URL"]).exists("outbox"):
    time.sleep(0.05)
"""

# --- a broker that repeats whatever it was sent


def echo(request: bytes) -> str:
    """What a broker that means well might quote in its error."""
    authorization = re.search(rb"Authorization: (.*)\r\n", request)[1].decode()
    return f"secret {SECRET} security-token: {TOKEN} Authorization: {authorization}"


def answer(status: str, body: str, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", body]
    return "\r\n".join(lines).encode()


def error(status: str, code: str, request: bytes, *headers: str) -> bytes:
    children = f"<Code>{code}</Code><Message>{echo(request)}</Message><RequestId>{TOKEN}</RequestId>"
    return answer(status, f"<Error>{children}<HostId>{TOKEN}</HostId></Error>", *headers)


def halved(request: bytes) -> bytes:
    """A good answer to a half message, with its receipt handle."""
    good = answer_bytes(request)
    body = good.partition(b"\r\n\r\n")[2].replace(
        b"</Message>", f"<ReceiptHandle>{HANDLE}</ReceiptHandle></Message>".encode()
    )
    return answer("201 Created", body.decode())


#: By topic, what the first request is answered with; from then on the answer is good.
ANSWERS = {
    "refused": lambda request: error("403 Forbidden", "SignatureDoesNotMatch", request),
    "expired": lambda request: error("403 Forbidden", TOKEN, request, f"x-mq-request-id: {TOKEN}"),
    "invalid": lambda request: error("400 Bad Request", "InvalidArgument", request),
    "strange": lambda request: error("400 Bad Request", "NeverHeardOf", request, f"Retry-After: {TOKEN}"),
    "failing": lambda request: error("500 Oops", "InternalError", request, f"Date: {TOKEN}", f"Set-Cookie: t={TOKEN}"),
    "moved": lambda request: answer("302 Found", "", f"Location: http://127.0.0.1:1/?token={TOKEN}"),
    "page": lambda request: answer("502 Bad Gateway", f"<html>{echo(request)} {HANDLE}</html>"),
    "garbled": lambda request: halved(request).replace(b"</ReceiptHandle>", b"</Receipt>"),
    "cut": lambda request: halved(request)[:-20],
    "other-body": lambda request: re.sub(rb"<MessageBodyMD5>\w+", b"<MessageBodyMD5>" + b"0" * 32, halved(request)),
    "odd-headers": lambda request: answer("201 Created", "", f"X-Handle {HANDLE} {TOKEN}"),
    "odd-status": lambda request: f"HTTP/{HANDLE} {TOKEN}\r\n\r\n".encode(),
    "odd-length": lambda request: f"HTTP/1.1 201 Created\r\nContent-Length: {HANDLE}\r\n\r\n".encode(),
    "odd-chunks": lambda request: (
        f"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n{HANDLE}\r\n{TOKEN}".encode()
    ),
    "silent": lambda request: b"",
    "half": halved,
    "good": halved,
}


def indiscreet():
    """The play of such a broker."""
    asked = dict.fromkeys(ANSWERS, 0)

    def play(connection):
        while request := connection.read_request():
            if request.startswith(b"GET "):
                connection.wait_for_client_to_leave()
                return
            topic = request.split(b"/")[2].decode()
            asked[topic] += 1
            reply = ANSWERS[topic](request) if asked[topic] == 1 else halved(request)
            connection.sendall(reply)
            if not reply.endswith(b"</Message>"):
                return

    return play


# --- everything that can be made to talk


LOOK = [["status"], ["status", "--json"], ["list"], ["list", "--json"], ["audit", "--json"]]
JOURNEY = [
    ["migrate"],
    *(["enqueue", "--topic", topic, "--tag", "created", "--key", "order-7", "a body"] for topic in ANSWERS),
    ["enqueue", "--topic", "half", "--transaction-check-s", "10", "a body"],
    ["--log-level", "debug", "relay", "--drain", "--timeout", "20"],
    *LOOK,
    *(["show", *as_json, str(row)] for row in range(1, len(ANSWERS) + 2) for as_json in ([], ["--json"])),
    ["pause", "good", "--reason", "a test"],
    ["resume", "good"],
    ["discard", "--state", "failed", "--reason", "a test", "--yes"],
]
# While a poll waits for its answer.
INTERRUPTED = (["check", "--once"], {"STOP_AFTER_S": "2", "OUTBOX_REQUEST_TIMEOUT_S": "30", "OUTBOX_LEASE_S": "90"})
NO_KEYS = dict.fromkeys(["OUTBOX_ACCESS_KEY_ID", "OUTBOX_ACCESS_KEY_SECRET", "OUTBOX_SECURITY_TOKEN"])


def mistakes(directory: Path) -> list[tuple[list[str], dict[str, str | None]]]:
    """Commands with settings that are wrong in every way that holds a secret."""
    (directory / "canary_keys.py").write_text(f'def provide():\n    raise RuntimeError("{SECRET} {TOKEN}")\n')
    (directory / "secret").write_text(f"{SECRET}\n{SECRET}\n")
    nested = json.dumps({"b": {"access_key_secret": SECRET, "security_tokem": TOKEN}})
    wrong = [
        {"OUTBOX_ENDPOINT": f"https://user:{PASSWORD}@broker.example"},
        {"OUTBOX_ENDPOINT": "http://broker.example"},
        {"OUTBOX_ACCESS_KEY_SECRET": f"{SECRET} {SECRET}"},
        {"OUTBOX_SECURITY_TOKEN": f"{TOKEN}\r\nX: {TOKEN}"},
        {"OUTBOX_ACCESS_KEY_ID": f"id:{SECRET}"},
        {"OUTBOX_ACCESS_KEY_SECRET": None, "OUTBOX_ACCESS_KEY_SECRET_FILE": str(directory / "secret")},
        {"OUTBOX_DESTINATIONS": nested},
        {"OUTBOX_DESTINATIONS": nested[:-20]},
        {"OUTBOX_CREDENTIALS": "canary_keys:provide", **NO_KEYS},
        {"OUTBOX_DATABASE_URL": f"postgresql+nodriver://user:{PASSWORD}@127.0.0.1/db"},
        {"OUTBOX_DATABASE_URL": f"postgresql+psycopg://user:{PASSWORD}@127.0.0.1:1/db"},
        {"OUTBOX_DATABASE_URL": f"postgresql+psycopg://user:{PASSWORD}@127.0.0.1:port/db"},
        {"OUTBOX_DATABASE_URL": f"mysql+pymysql://nobody:{PASSWORD}@127.0.0.1:3306/db"},
        {"OUTBOX_DATABASE_URL": f"user:{PASSWORD}@127.0.0.1"},
    ]
    relay, worker = ["relay", "--drain", "--timeout", "1"], ["worker"]
    brokers = [f"nosuch://user:{PASSWORD}@127.0.0.1:1/0", PASSWORD]
    return [
        *((command, changes) for changes in wrong for command in (relay, ["migrate"], ["status"])),
        *((worker, {"OUTBOX_BROKER_URL": broker}) for broker in brokers),
    ]


@pytest.fixture
def role(need):
    """A PostgreSQL role with the planted password; made before the database that it will own, and dropped after it."""
    need("postgresql")
    from tests.services import SERVICES

    name = f"outbox_canary_{uuid.uuid4().hex[:12]}"
    engine = create_engine(SERVICES["postgresql"].url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE ROLE {name} LOGIN SUPERUSER PASSWORD '{PASSWORD}'"))
        yield name
        connection.execute(text(f"DROP ROLE {name}"))
    engine.dispose()


@pytest.fixture
def database(role, make_database):
    """The URL of a database for the planted role, and an engine to look into it."""
    url = make_url(make_database("postgresql"))
    engine = create_engine(url)
    yield url.set(username=role, password=PASSWORD).render_as_string(hide_password=False), engine
    engine.dispose()


def run(environment, program: str, given: object = None) -> str:
    """All that a process says."""
    process = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(given),
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    return process.stdout + process.stderr


def rows_of(engine) -> str:
    """Every value of every row of every table."""
    metadata = MetaData()
    metadata.reflect(engine)
    with engine.connect() as connection:
        return "\n".join(
            f"{table.name} {row!r}" for table in metadata.sorted_tables for row in connection.execute(select(table))
        )


def keys_of(url: str) -> str:
    """Every value that a Redis database holds, whatever its type."""
    with redis.Redis.from_url(url) as client:
        return "\n".join(f"{key} {client.dump(key)!r} {_values(client, key)!r}" for key in client.scan_iter())


def _values(client, key):
    match client.type(key):
        case b"list":
            return client.lrange(key, 0, -1)
        case b"hash":
            return client.hgetall(key)
        case b"set":
            return client.smembers(key)
        case b"zset":
            return client.zrange(key, 0, -1)
        case _:
            return client.get(key)


def unwrapped(text: str) -> str:
    """The text, and what it holds in base64, as Celery's messages do."""
    wrapped = re.findall(r"[A-Za-z0-9+/]{24,}={0,2}", text)
    return "\n".join(
        [text, *(b64decode(part + "==").decode("latin-1") for part in wrapped if len(part.rstrip("=")) % 4 != 1)]
    )


def leaks(said: dict[str, str], signatures: set[str]) -> list[tuple[str, str, str]]:
    """Where a canary or a signature stands, and what is around it."""
    hunted = [*CANARIES.items(), *(("signature", signature) for signature in signatures)]
    return [
        (where, name, text[max(0, text.index(canary) - 200) :][:300])
        for where, text in ((where, unwrapped(text)) for where, text in said.items())
        for name, canary in hunted
        if canary in text
    ]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("broker_url", ["redis"], indirect=True)
@pytest.mark.parametrize(("http_engine", "http_logger"), [("requests", "urllib3.connectionpool"), ("curl", "outbox")])
def test_planted_secrets_are_nowhere(database, broker_url, tmp_path, http_engine, http_logger):
    """Not in output, logs at DEBUG, errors, any column of the database, Celery's queue or its worker's log."""
    database_url, engine = database
    with Server(indiscreet()) as server:
        environment = settings(
            database_url,
            server.url,
            OUTBOX_ACCESS_KEY_SECRET=SECRET,
            OUTBOX_SECURITY_TOKEN=TOKEN,
            OUTBOX_BROKER_URL=broker_url,
            OUTBOX_GROUP_ID="GID_1",
            OUTBOX_MAX_ATTEMPTS=3,
            OUTBOX_HTTP_ENGINE=http_engine,
            PYTHONPATH=f"{ROOT}:{tmp_path}",
        )
        said = {"journey": run(environment, LOUD, [*((arguments, {}) for arguments in JOURNEY), INTERRUPTED])}
        said["mistakes"] = run(environment, LOUD, mistakes(tmp_path))
        said["shop"] = run(environment, SHOP)
        said["queue"] = keys_of(broker_url)
        with worker(environment, tmp_path, "-l", "debug", "--beat", "--queues", "outbox") as running:
            wait_for(lambda: any(b"from the shop" in request for request in server.requests))
            running.stop()
            said["worker"] = running.log
        said["rows"] = rows_of(engine)
    requests = b"".join(server.requests).decode()
    signatures = set(re.findall(r"Authorization: MQ FAKEAKID:(\S+)", requests))

    assert [] == leaks(said, signatures)
    # Where secrets could have been, there was something to find.
    assert TOKEN in requests
    assert len(signatures) > 1
    assert all(topic in said["rows"] for topic in ANSWERS)
    assert said["rows"].count("security-token: ***") > 5
    assert min(said["journey"].count(logger) for logger in (http_logger, "sqlalchemy.engine", "outbox.paused"))
    assert "TimeLimit\n Raised at:\n" in said["journey"]
    assert "outcome = place.client.check(" in said["journey"]
    assert said["mistakes"].count("error: OUTBOX_") > 30
    assert "outbox.relay" in said["queue"]
    assert "Task outbox.relay" in said["worker"]
