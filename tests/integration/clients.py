"""Clients for tests: built on a server's address, and what to ask of them."""

import socket
import ssl
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import trustme
from pydantic import SecretStr

from outbox.outcomes import Sent
from outbox.rocketmq.client import Client
from outbox.rocketmq.curl import CurlTransport
from outbox.rocketmq.transport import RequestsTransport
from outbox.settings import Destination
from tests.integration.fault_proxy import MESSAGE_ID, Connection

BODY = '{"id":7,"name":"Zoë"}'
PROPERTIES = "KEYS:order-7|outbox_id:0b3c3bb6-0d5b-4a0f-8a94-0e7d2e4e2d52|"
NOW = 1772690828.5
DATE = "Thu, 05 Mar 2026 06:07:08 GMT"
SENT = Sent(MESSAGE_ID)
HEAD = b"HTTP/1.1 201 Created\r\nContent-Type: text/xml\r\n"
TRANSPORTS = {"requests": RequestsTransport, "curl": CurlTransport}
#: Top-level domains of which no resolver is asked: by the fence around the tests, and by libcurl.
UNKNOWN = {"requests": "invalid", "curl": "onion"}
SECRETS = {"access_key_secret", "security_token"}


def destination(endpoint="http://127.0.0.1:1", **options):
    options = {"instance_id": "MQ_INST_1", "access_key_id": "FAKEAKID", "access_key_secret": "FAKESECRET"} | options
    options = {name: SecretStr(value) if name in SECRETS else value for name, value in options.items()}
    return Destination(endpoint=endpoint, **options)


@pytest.fixture
def connect(http_engine):
    """Build clients that are closed at the end; what is not named has a quiet default."""
    transports = []

    def build(server, *, wall_clock=lambda: NOW, verify=True, idle_s=10.0, pool_size=4, url=None, **options):
        endpoint = url or server.url
        transport = TRANSPORTS[http_engine](endpoint, pool_size=pool_size, idle_s=idle_s, verify=verify)
        transports.append(transport)
        return Client(destination(endpoint, **options), transport, wall_clock)

    yield build
    for transport in transports:
        transport.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A certificate authority of our own: its bundle, and a server's context for a host name."""
    ca = trustme.CA()
    bundle = tmp_path_factory.mktemp("tls") / "ca.pem"
    ca.cert_pem.write_to_path(bundle)

    def context(name):
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert(name).configure_cert(server)
        return server

    return SimpleNamespace(bundle=str(bundle), context=context)


def publish(client, body=BODY, *, topic="orders", tag="created", properties=PROPERTIES, deadline_s=5.0):
    return client.publish(topic, body, tag, properties, deadline_s=deadline_s)


def headers_of(request: bytes) -> dict[str, str]:
    lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines)


def summary(outcome):
    return type(outcome).__name__, outcome.fault.code, outcome.fault.accepted


def timed(act):
    started = time.monotonic()
    result = act()
    return result, time.monotonic() - started


def speak(*answers: bytes):
    """A play that reads one request for each answer, and then closes."""

    def play(connection: Connection) -> None:
        for answer in answers:
            if connection.read_request():
                connection.sendall(answer)

    return play


def drip(data: bytes, after: bytes = b""):
    """A play that reads a request and answers it one byte at a time, for ever."""

    def play(connection):
        connection.read_request()
        connection.sendall(after)
        while True:
            for byte in data:
                connection.sendall(bytes([byte]))
                time.sleep(0.02)

    return play


@contextmanager
def unanswering_port(host="127.0.0.1", port=0):
    """A port whose queue of connections is full: further ones are neither taken nor refused."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener, socket.socket(family) as filler:
        listener.bind((host, port))
        listener.listen(0)
        filler.connect(listener.getsockname())
        yield listener.getsockname()[1]
