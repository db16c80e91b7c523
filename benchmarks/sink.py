"""A broker's place for benchmarks: takes everything and answers 201 after a while, as fast as Python can.

::

    python benchmarks/sink.py PORT DELAY_MS MD5_OF_EVERY_BODY
"""

import asyncio
import sys

import uvloop


class Sink(asyncio.Protocol):
    """One connection; each request's body is as long as its Content-Length says."""

    def __init__(self, answer: bytes, delay_s: float) -> None:
        self._answer = answer
        self._delay_s = delay_s
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request that is whole."""
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._data) < end + 4 + length:
                return
            self._data = self._data[end + 4 + length :]
            asyncio.get_running_loop().call_later(self._delay_s, self._write)

    def _write(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(self._answer)  # type: ignore[attr-defined]


async def main(port: int, delay_s: float, digest: str) -> None:
    """Serve until killed."""
    xml = f"<Message><MessageId>{'A' * 32}</MessageId><MessageBodyMD5>{digest}</MessageBodyMD5></Message>"
    head = f"HTTP/1.1 201 Created\r\nContent-Type: text/xml\r\nx-mq-request-id: 1\r\nContent-Length: {len(xml)}\r\n\r\n"
    answer = (head + xml).encode()
    server = await asyncio.get_running_loop().create_server(lambda: Sink(answer, delay_s), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2]) / 1000, sys.argv[3]))
