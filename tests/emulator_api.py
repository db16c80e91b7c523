"""A client of the HTTP API for tests of the emulator, written from the API's rules: it shares no code with ours."""

import hashlib
import hmac
import http.client
import socket
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

NAMESPACE = "{http://mq.aliyuncs.com/doc/v1}"


@dataclass(frozen=True)
class Reply:
    """An answer as it was read."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def root(self) -> ET.Element:
        return ET.fromstring(self.body)

    def text(self, name: str) -> str | None:
        return self.root.findtext(f"{NAMESPACE}{name}")

    @property
    def code(self) -> str | None:
        return self.text("Code")

    @property
    def messages(self) -> list[dict[str, str]]:
        """The messages of a batch, each as element name → text; none for MessageNotExist."""
        if self.status == 404:
            assert self.code == "MessageNotExist"
            return []
        assert self.status == 200
        return [{child.tag.removeprefix(NAMESPACE): child.text or "" for child in one} for one in self.root]

    @property
    def bodies(self) -> list[str]:
        return [message["MessageBody"] for message in self.messages]

    @property
    def failures(self) -> list[tuple[str, str]]:
        """The (ErrorCode, ReceiptHandle) of each ``<Error>`` in ``<Errors>``."""
        assert self.root.tag == f"{NAMESPACE}Errors"
        return [
            (one.findtext(f"{NAMESPACE}ErrorCode", ""), one.findtext(f"{NAMESPACE}ReceiptHandle", ""))
            for one in self.root
        ]


class ApiClient:
    """Requests to one endpoint, over one connection that is kept alive."""

    def __init__(
        self, url: str, key_id: str = "FAKEAKID", secret: str = "FAKESECRET", ns: str = "MQ_INST_1", timeout: float = 10
    ) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
        self._key_id = key_id
        self._secret = secret
        self._ns = ns

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.close()

    def signed(self, method: str, target: str, body: bytes = b"", **changes: str | None) -> dict[str, str]:
        """The headers of a request; ``changes`` replace some before signing, None leaves one out."""
        given = {
            "Date": changes.get("Date", formatdate(usegmt=True)),
            "Content-Type": changes.get("Content_Type", "text/xml;charset=utf-8" if body else None),
            "Content-MD5": changes.get("Content_MD5"),
            "x-mq-version": changes.get("x_mq_version", "2015-06-06"),
        }
        headers = {name: value for name, value in given.items() if value is not None}
        lines = [method, *(headers.get(name, "") for name in ("Content-MD5", "Content-Type", "Date"))]
        lines += [f"{name}:{headers[name]}" for name in ("x-mq-version",) if name in headers]
        digest = hmac.new(self._secret.encode(), "\n".join([*lines, target]).encode(), hashlib.sha1).digest()
        return headers | {"Authorization": f"MQ {self._key_id}:{b64encode(digest).decode()}"}

    def send(self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Reply:
        """Send a request as it is, signed unless ``headers`` are given."""
        if headers is None:
            headers = self.signed(method, target, body)
        self._connection.request(method, target, body or None, dict(headers))
        with self._connection.getresponse() as answer:
            return Reply(answer.status, dict(answer.getheaders()), answer.read())

    def target(self, topic: str, **parameters: str | int | None) -> str:
        """Path and query, with ``ns`` unless this client has none."""
        given = {"ns": self._ns or None, **parameters}
        query = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in given.items() if value is not None)
        return f"/topics/{topic}/messages" + (f"?{query}" if query else "")

    def publish(
        self, topic: str, body: str, tag: str | None = None, properties: Mapping[str, object] | str | None = None
    ) -> Reply:
        if isinstance(properties, Mapping):
            properties = "".join(f"{key}:{value}|" for key, value in properties.items())
        given = {"MessageBody": body, "MessageTag": tag, "Properties": properties}
        inner = "".join(f"<{name}>{_text(value)}</{name}>" for name, value in given.items() if value is not None)
        return self.send("POST", self.target(topic), f"<Message>{inner}</Message>".encode())

    def consume(
        self,
        topic: str,
        group: str = "GID_1",
        *,
        limit: int = 16,
        wait: int | None = None,
        tag: str | None = None,
        trans: str | None = None,
    ) -> Reply:
        query = {"consumer": group, "numOfMessages": limit, "waitseconds": wait, "tag": tag, "trans": trans}
        return self.send("GET", self.target(topic, **query))

    def check(self, topic: str, limit: int = 16, wait: int | None = None) -> Reply:
        return self.consume(topic, limit=limit, wait=wait, trans="pop")

    def end(self, topic: str, handles: Iterable[str], trans: str | None = None, group: str = "GID_1") -> Reply:
        """Acknowledge, or commit or roll back by ``trans``."""
        inner = "".join(f"<ReceiptHandle>{_text(handle)}</ReceiptHandle>" for handle in handles)
        document = f'<ReceiptHandles xmlns="http://mq.aliyuncs.com/doc/v1/">{inner}</ReceiptHandles>'
        return self.send("DELETE", self.target(topic, consumer=group, trans=trans), document.encode())


def _text(value: str) -> str:
    return escape(value, {"\r": "&#13;"})


def connect(url: str, timeout: float = 5) -> socket.socket:
    """A bare connection to an endpoint, for bytes that no HTTP library would send or take."""
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 80), timeout)


def raw_request(client: ApiClient, method: str, target: str, body: bytes = b"", *extra: str) -> bytes:
    """A signed request's bytes, with further header lines."""
    headers = client.signed(method, target, body)
    lines = [f"{method} {target} HTTP/1.1", "Host: emulator", f"Content-Length: {len(body)}", *extra]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
