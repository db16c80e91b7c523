"""A broker's place for large messages: counts their bytes instead of keeping them, and answers 201.

::

    python benchmarks/deep/large_sink.py MD5_OF_EVERY_BODY     # its first line is its port
"""

import asyncio
import re
import sys

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class LargeSink(asyncio.Protocol):
    """One connection."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._head = b""
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request once its body is over; nobody sends the next before the answer."""
        if not self._missing:
            self._head += data
            head, over, data = self._head.partition(b"\r\n\r\n")
            length = _LENGTH.search(head) if over else None
            if not length:
                return
            self._head, self._missing = b"", int(length[1])
        self._missing -= len(data)
        if not self._missing:
            self._transport.write(self._answer)  # type: ignore[attr-defined]


async def main(digest: str) -> None:
    """Serve until killed."""
    xml = f"<Message><MessageId>{'A' * 32}</MessageId><MessageBodyMD5>{digest}</MessageBodyMD5></Message>"
    head = f"HTTP/1.1 201 Created\r\nContent-Type: text/xml\r\nx-mq-request-id: 1\r\nContent-Length: {len(xml)}\r\n\r\n"
    answer = (head + xml).encode()
    server = await asyncio.get_running_loop().create_server(lambda: LargeSink(answer), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
