"""Loops that outlive the relay that uses them."""

import os

from outbox.rocketmq.loops import KeptLoops


class Loop:
    def __init__(self, connections):
        self.connections = connections
        self.in_flight = 0
        self.closed = False

    def close(self):
        self.closed = True


def test_one_after_the_other_has_the_same():
    """So its connections are used again."""
    loops = KeptLoops(Loop)
    first = loops.take(4)
    loops.give_back(first)

    assert first is loops.take(4)
    assert (4, False) == (first.connections, first.closed)


def test_two_at_once_have_their_own():
    """A loop belongs to one thread; of those that come back one is kept."""
    loops = KeptLoops(Loop)
    first, second = loops.take(4), loops.take(4)
    loops.give_back(first)
    loops.give_back(second)

    assert first is not second
    assert [False, True] == [first.closed, second.closed]


def test_one_with_requests_in_flight_is_closed():
    """Their answers would be told to somebody who has gone."""
    loops = KeptLoops(Loop)
    loop = loops.take(4)
    loop.in_flight = 1
    loops.give_back(loop)

    assert loop.closed
    assert loop is not loops.take(4)


def test_close():
    """What was kept is closed; the next is new."""
    loops = KeptLoops(Loop)
    loop = loops.take(4)
    loops.give_back(loop)
    loops.close()

    assert loop.closed
    assert not loops.take(4).closed


def test_forgotten():
    """Whoever drops it need not close it."""
    loops = KeptLoops(Loop)
    loop = loops.take(4)
    loops.give_back(loop)
    del loops

    assert loop.closed


def test_child_leaves_its_parents_loop_alone():
    """After a fork the connections are the parent's: the child neither uses nor closes them."""
    loops = KeptLoops(Loop)
    kept = loops.take(4)
    loops.give_back(kept)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        own = loops.take(4)
        loops.close()
        os.write(writer, b"own" if own is not kept and not kept.closed else b"shared")
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        said = told.read()
    os.waitpid(child, 0)

    assert b"own" == said
    assert kept is loops.take(4)
