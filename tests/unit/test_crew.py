"""Who of the publishers' threads takes part, on virtual time."""

import pytest

from outbox.relay.crew import WINDOW_S, Crew
from tests.virtual_clock import VirtualClock

THREADS = 32
#: A request computes for so long in all, whoever waits beside it.
COMPUTES_S = 0.002


class Crowd:
    """Threads that each send one request after the other, to a broker that answers within ``answers_s``."""

    def __init__(self, clock, answers_s):
        self.clock = clock
        self.answers_s = answers_s
        self.idle = False
        self.over = False
        self.done = [0] * THREADS
        self.crew = Crew(clock, lambda: self.idle)
        self.tasks = [clock.spawn(f"publisher-{n}", lambda n=n: self._work(n)) for n in range(THREADS)]

    def _work(self, number):
        while not self.over:
            self.crew.wait_for_turn(number)
            self.clock.sleep(self.answers_s)
            # They share an interpreter.
            self.clock.sleep(COMPUTES_S * (1 if self.alone else THREADS))
            self.crew.worked(number, COMPUTES_S)
            self.done[number] += 1

    @property
    def alone(self):
        return self.crew._alone

    def busy_in(self, seconds):
        """The threads that were through with anything within the next so many seconds."""
        before = list(self.done)
        self.clock.sleep(seconds)
        return {n for n in range(THREADS) if self.done[n] > before[n]}

    def end(self):
        self.over = True
        self.crew.dismiss()
        for task in self.tasks:
            task.join()


@pytest.fixture
def crowd():
    """A function that makes one on a broker that answers within so many seconds."""
    with VirtualClock() as clock:
        made = []

        def make(answers_s):
            made.append(Crowd(clock, answers_s))
            return made[-1]

        yield make
        for one in made:
            one.end()


def test_one_suffices_where_answers_come_at_once(crowd):
    """Where one thread's time is nearly all computing, the others leave it alone, for good."""
    threads = crowd(0.0002)
    threads.busy_in(3 * WINDOW_S)

    assert {0} == threads.busy_in(30)


def test_all_are_needed_where_answers_take_long(crowd):
    """Where one alone would wait, all take part but for short trials, which become rare."""
    threads = crowd(0.015)
    alone = []
    for _ in range(3000):
        threads.clock.sleep(0.01)
        alone.append(threads.alone)

    assert 4 <= sum(alone) <= 20
    assert sum(alone[1500:]) <= 6
    assert set(range(THREADS)) == threads.busy_in(WINDOW_S)


@pytest.mark.parametrize("answers_s", [10, 0.05])
def test_all_come_back_within_a_window_when_answers_fail_to_come(crowd, answers_s):
    """The one that is alone may be held up: the second looks at the clock for it."""
    threads = crowd(0.0002)
    threads.busy_in(1)
    threads.answers_s = answers_s
    threads.clock.sleep(3 * WINDOW_S)

    assert not threads.alone


def test_nobody_looks_at_the_clock_while_there_is_nothing_to_do(crowd):
    """An idle relay wakes no thread; `call` has the second look again."""
    threads = crowd(0.0002)
    threads.busy_in(1)
    threads.idle, threads.answers_s = True, 60.0
    threads.clock.sleep(10)
    slept = threads.alone
    threads.idle = False
    threads.crew.call()
    threads.clock.sleep(3 * WINDOW_S)

    assert (True, False) == (slept, threads.alone)


def test_dismissed_ones_leave(crowd):
    """Whoever waits for a turn is through when the crew is dismissed."""
    threads = crowd(0.0002)
    threads.busy_in(1)
    threads.over = True
    threads.crew.dismiss()
    threads.clock.sleep(1)

    assert not any(task.is_alive() for task in threads.tasks)
