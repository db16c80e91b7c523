"""The subscriber of faststream-outbox, with a handler that POSTs to the sink.

::

    python -m benchmarks.peers.by_faststream_outbox DATABASE_URL SINK_URL MESSAGES AT_ONCE

Claim, workers, and the deletion of what is handled are its own. Its handlers are asynchronous, and the official SDK is
not: so they POST with aiohttp, on uvloop, and write the XML and the signature themselves, as short as can be. It
asks for 500 rows at a time, as ours does, and deletes many at once, which it does not by default.
"""

import asyncio
import hmac
import json
import logging
import sys
import time
from base64 import b64encode
from email.utils import formatdate
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import uvloop
from aiohttp import ClientSession, TCPConnector
from faststream_outbox import OutboxBroker, make_outbox_table
from sqlalchemy import MetaData, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from benchmarks.sinks import BODY

BATCH = 500
QUEUE = "orders"
TARGET = "/topics/orders/messages"
CONTENT_TYPE = "text/xml;charset=utf-8"
VERSION = "2015-06-06"
XML = "<Message xmlns='http://mq.aliyuncs.com/doc/v1/'><MessageBody>{}</MessageBody><Properties>KEYS:k|</Properties></Message>"


async def fill(broker: OutboxBroker, engine: AsyncEngine, metadata: MetaData, count: int) -> None:
    """Rows as its broker writes them."""
    async with engine.begin() as connection:
        await connection.run_sync(metadata.drop_all)
        await connection.run_sync(metadata.create_all)
        for first in range(0, count, BATCH):
            bodies = [BODY] * min(BATCH, count - first)
            await broker.publish_batch(*bodies, queue=QUEUE, session=connection)


def headers() -> dict[str, str]:
    """What signs one request."""
    date = formatdate(usegmt=True)
    lines = f"POST\n\n{CONTENT_TYPE}\n{date}\nx-mq-version:{VERSION}\n{TARGET}"
    signed = b64encode(hmac.digest(b"FAKESECRET", lines.encode(), "sha1")).decode()
    given = {"Content-Type": CONTENT_TYPE, "Date": date, "x-mq-version": VERSION}
    return given | {"Authorization": f"MQ FAKEAKID:{signed}"}


async def drain(broker: OutboxBroker, http: ClientSession, count: int, at_once: int) -> dict[str, float]:
    """Handle so many rows, and wait until they are deleted; what that took once all workers had their connections."""
    left, waiting = count, 0
    ready, go, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @broker.subscriber(QUEUE, max_workers=at_once, fetch_batch_size=BATCH, terminal_flush_batch_size=BATCH // at_once)
    async def publish(body: str) -> None:
        nonlocal left, waiting
        if not go.is_set():
            waiting += 1
            if waiting == at_once:
                ready.set()
            await go.wait()
        async with http.post(TARGET, data=XML.format(escape(body)), headers=headers()) as answer:
            if ET.fromstring(await answer.read()).findtext("MessageId") is None:
                raise ValueError("it was not taken")
        left -= 1
        if not left:
            done.set()

    await broker.start()
    await ready.wait()
    started, cpu = time.monotonic(), time.process_time()
    go.set()
    await done.wait()
    # It ends once the rows that were handled are deleted.
    await broker.stop()
    return {"seconds": time.monotonic() - started, "cpu_s": time.process_time() - cpu}


async def main(database_url: str, url: str, count: int, at_once: int) -> None:
    """Fill, drain, and tell the seconds and the seconds of CPU that draining took."""
    metadata = MetaData()
    table = make_outbox_table(metadata, table_name="faststream_outbox")
    place = make_url(database_url).set(drivername="postgresql+asyncpg")
    engine = create_async_engine(place, pool_size=at_once + 2)
    broker = OutboxBroker(engine, outbox_table=table, logger=logging.getLogger(__name__))
    await fill(broker, engine, metadata, count)
    async with ClientSession(url, connector=TCPConnector(limit=at_once)) as http:
        used = await drain(broker, http, count, at_once)
    async with engine.connect() as connection:
        if await connection.scalar(text("SELECT count(*) FROM faststream_outbox")):
            raise SystemExit("faststream-outbox left rows behind")
    await engine.dispose()
    print(json.dumps(used))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
