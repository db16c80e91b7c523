"""The sink of `make bench` for machines without nginx."""

import asyncio

import pytest

from benchmarks.sink import Sink

REQUEST = b"POST /topics/orders/messages HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody"


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self):
        super().__init__()
        self.written = []

    def is_closing(self):
        return False

    def write(self, data):
        self.written.append(data)


def answers_to(*pieces):
    """How many answers come to what arrives in pieces."""

    async def talk():
        wire = Wire()
        protocol = Sink(b"answer", 0.0)
        protocol.connection_made(wire)
        for piece in pieces:
            protocol.data_received(piece)
        await asyncio.sleep(0.001)
        return len(wire.written)

    return asyncio.run(talk())


@pytest.mark.parametrize(
    ("pieces", "answers"),
    [
        ([REQUEST], 1),
        ([REQUEST * 2], 2),
        ([REQUEST[:30], REQUEST[30:-1], REQUEST[-1:]], 1),
        ([REQUEST[:-1]], 0),
        ([REQUEST + REQUEST[:20], REQUEST[20:]], 2),
        ([b"GET / HTTP/1.1\r\n\r\n"], 1),
    ],
)
def test_sink_answers_each_whole_request(pieces, answers):
    """Neither what is split nor what comes together may be counted wrong."""
    assert answers == answers_to(*pieces)
