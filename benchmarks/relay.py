"""How many messages a second a relay publishes, and what each costs in CPU, against what else there is.

::

    make bench              # ten minutes at most
    make bench QUICK=1      # two

Everything is measured in one run on one machine: the official SDK's loop with the same batched claim and mark, our two
engines, and wrk on the same nginx, which is the machine's limit. Each figure is the median of the rounds, which take
turns. PostgreSQL must answer where the tests look for it; nginx and wrk are left out where they are not installed.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from hashlib import md5
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import Engine, create_engine, insert, text

from outbox import Message
from outbox.migrate import upgrade
from outbox.settings import Settings
from outbox.store import lanes
from outbox.store.claim import claim
from outbox.store.database import Database
from outbox.store.mark import MarkSent, mark
from outbox.table import messages, row_of
from outbox.wiring import Runtime
from tests import services

BODY = "x" * 500
DIGEST = md5(BODY.encode(), usedforsecurity=False).hexdigest().upper()
RESULTS = Path(__file__).parent / "results"
NGINX = """
worker_processes 1; daemon off; pid {directory}/pid; error_log /dev/null;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_temp_path {directory}/body; client_body_buffer_size 64k;
  proxy_temp_path {directory}/a; fastcgi_temp_path {directory}/b;
  uwsgi_temp_path {directory}/c; scgi_temp_path {directory}/d;
  server {{ listen 127.0.0.1:{port}; location / {{ default_type text/xml; add_header x-mq-request-id 1;
    return 201 '<Message><MessageId>{message_id}</MessageId><MessageBodyMD5>{digest}</MessageBodyMD5></Message>'; }} }}
}}
"""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(command: list[str], port: int) -> Iterator[str]:
    """A server, from when it listens; its URL."""
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            until = time.monotonic() + 10
            while time.monotonic() < until:
                with socket.socket() as probe:
                    if not probe.connect_ex(("127.0.0.1", port)):
                        break
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


@contextmanager
def sink(delay_ms: int) -> Iterator[str]:
    """What takes the messages: nginx at 0 ms where there is one, else our own."""
    port = free_port()
    with ExitStack() as stack:
        nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if nginx and not delay_ms:
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            Path(directory, "conf").write_text(
                NGINX.format(directory=directory, port=port, message_id="A" * 32, digest=DIGEST), encoding="ascii"
            )
            command = [nginx, "-c", f"{directory}/conf", "-p", directory]
        else:
            command = [sys.executable, str(Path(__file__).with_name("sink.py")), str(port), str(delay_ms), DIGEST]
        yield stack.enter_context(process(command, port))


def fill(engine: Engine, count: int) -> None:
    """An outbox with so many due rows of one lane."""
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE outbox_messages, outbox_attempts RESTART IDENTITY CASCADE"))
        for first in range(0, count, 5000):
            many = [row_of(Message("orders", BODY, keys="k"), 0.0) for _ in range(min(5000, count - first))]
            connection.execute(insert(messages), many)


def ours(engine_name: str, concurrency: int) -> Callable[[str, str, int], None]:
    """Our relay with that engine."""

    def run(database_url: str, url: str, count: int) -> None:
        runtime = Runtime(
            Settings.from_env(
                {
                    "OUTBOX_DATABASE_URL": database_url,
                    "OUTBOX_ENDPOINT": url,
                    "OUTBOX_ACCESS_KEY_ID": "FAKEAKID",
                    "OUTBOX_ACCESS_KEY_SECRET": "FAKESECRET",
                    "OUTBOX_HTTP_ENGINE": engine_name,
                    "OUTBOX_CONCURRENCY": str(concurrency),
                }
            )
        )
        counts = runtime.relay().run(runtime.drained(30.0))
        runtime.close()
        if counts.sent != count:
            raise SystemExit(f"{engine_name} sent {counts.sent} of {count}")

    return run


def sdk_loop(database_url: str, url: str, count: int) -> None:
    """The official SDK, one message after the other, with our claim and mark: 500 rows at a time."""
    from mq_http_sdk.mq_client import MQClient  # noqa: PLC0415 - a development dependency
    from mq_http_sdk.mq_producer import TopicMessage  # noqa: PLC0415

    engine = create_engine(database_url, isolation_level="READ COMMITTED")
    database, producer = Database(engine), MQClient(url, "FAKEAKID", "FAKESECRET").get_producer("", "orders")
    sent = 0
    while rows := claim(database, lanes.Lane("default", "orders"), limit=500, lease_s=60, max_attempts=10):
        marks = []
        for row in rows:
            message = TopicMessage(row.body)
            message.set_message_key("k")
            marks.append(MarkSent(row.id, row.lease_token, producer.publish_message(message).message_id))
        mark(database, list(marks), keep_sent=True)
        sent += len(marks)
    engine.dispose()
    if sent != count:
        raise SystemExit(f"the SDK's loop sent {sent} of {count}")


def measured(run: Callable[[str, str, int], None], database_url: str, url: str, count: int) -> dict[str, float]:
    """Run in a process of its own: messages a second, CPU in µs a message, and memory in MB."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        before, started = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        run(database_url, url, count)
        seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found = {"rate": count / seconds, "cpu_us": cpu_s / count * 1e6, "memory_mb": after.ru_maxrss / 1024}
        os.write(writer, json.dumps(found).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        answer = told.read()
    os.waitpid(child, 0)
    if not answer:
        raise SystemExit("a contender did not finish")
    return dict(json.loads(answer))


def wrk(url: str, connections: int, seconds: int) -> float | None:
    """POSTs a second of wrk on the same sink; None without wrk."""
    if not shutil.which("wrk"):
        return None
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f'wrk.method = "POST"\nwrk.body = "{"x" * 800}"\n')
        script.flush()
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "-s",
            script.name,
            f"{url}/topics/orders/messages",
        ]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(told.split("Requests/sec:")[1].split()[0])


def bench(database_url: str, *, rounds: int, count: int, seconds: int) -> list[dict[str, Any]]:
    """Every contender on each sink, taking turns."""
    engine, table = create_engine(database_url), []
    for delay_ms, concurrency in ((0, 16), (5, 64)):
        contenders = {
            "the SDK's loop": (sdk_loop, count if not delay_ms else max(200, count // 40)),
            f"requests x{concurrency}": (ours("requests", concurrency), count),
            f"curl x{concurrency}": (ours("curl", concurrency), count * 2),
        }
        with sink(delay_ms) as url:
            found: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
            for _ in range(rounds):
                for name, (run, many) in contenders.items():
                    fill(engine, many)
                    engine.dispose()
                    found[name].append(measured(run, database_url, url, many))
            limit = wrk(url, concurrency, seconds)
        table += [summary(delay_ms, name, runs) for name, runs in found.items()]
        if limit:
            table.append({"sink_ms": delay_ms, "what": f"wrk x{concurrency}, no database", "rate": round(limit)})
    return table


def summary(delay_ms: int, name: str, runs: list[dict[str, float]]) -> dict[str, Any]:
    """Medians, and the spread of the rate."""
    rates = [run["rate"] for run in runs]
    middle = {key: round(median(run[key] for run in runs)) for key in ("rate", "cpu_us", "memory_mb")}
    return {"sink_ms": delay_ms, "what": name, **middle, "lowest": round(min(rates)), "highest": round(max(rates))}


def show(table: list[dict[str, Any]]) -> str:
    """The table as Markdown."""
    lines = ["| sink | what | messages/s | lowest–highest | CPU µs/message | memory MB |", "|---|---|---|---|---|---|"]
    for one in table:
        spread = f"{one['lowest']:,}–{one['highest']:,}" if "lowest" in one else ""
        more = f"{one.get('cpu_us', '')} | {one.get('memory_mb', '')}"
        lines.append(f"| {one['sink_ms']} ms | {one['what']} | {one['rate']:,} | {spread} | {more} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two minutes instead of ten")
    parser.add_argument("--rounds", type=int, help="rounds of each contender, 5 by default")
    parser.add_argument("--note", default="", help="written beside the results")
    given = parser.parse_args()
    rounds, count = given.rounds or (1 if given.quick else 5), 2000 if given.quick else 5000
    with tempfile.TemporaryDirectory() as directory, services.fresh_database("postgresql", Path(directory)) as url:
        database_url = url.render_as_string(hide_password=False)
        engine = create_engine(database_url)
        upgrade(engine)
        engine.dispose()
        table = bench(database_url, rounds=rounds, count=count, seconds=2 if given.quick else 5)
    packages = {name: version(name) for name in ("rocketmq-outbox", "pycurl", "requests", "sqlalchemy", "psycopg")}
    machine = {"cpu": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()} | packages
    RESULTS.mkdir(exist_ok=True)
    document = {"machine": machine, "rounds": rounds, "note": given.note, "table": table}
    (RESULTS / "relay.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "relay.md").write_text(f"{json.dumps(machine)}\n\n{show(table)}\n\n{given.note}\n", encoding="utf-8")
    print(show(table))


if __name__ == "__main__":
    main()
