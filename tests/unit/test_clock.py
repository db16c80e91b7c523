"""The system's clock, and the virtual one that stands in for it: the same promises, the same tests."""

import threading
import time

import pytest

from outbox.clock import SYSTEM
from tests.virtual_clock import Deadlock, VirtualClock


@pytest.fixture(params=["system", "virtual"])
def clock(request):
    if request.param == "system":
        yield SYSTEM
        return
    with VirtualClock() as virtual:
        yield virtual


def test_sleep_passes_time(clock):
    """After a sleep, so much time has passed by the monotonic clock and by the wall's."""
    wall, before = clock.wall(), clock.monotonic()
    clock.sleep(0.02)

    assert 0.02 <= clock.monotonic() - before < 5
    assert 0.01 <= clock.wall() - wall < 5


def test_uniform_stays_between_its_bounds(clock):
    """Jitter is what it is asked to be."""
    drawn = [clock.uniform(1.0, 2.0) for _ in range(100)]

    assert 1.0 <= min(drawn) < max(drawn) <= 2.0


def test_lock_may_be_taken_again_by_its_holder(clock):
    """A signal handler may interrupt the holder of a lock and need it."""
    lock = clock.lock()
    order = []

    def other():
        with lock:
            order.append("other")

    with lock, lock:
        task = clock.spawn("other", other)
        clock.sleep(0.02)
        order.append("holder")
    task.join(5)

    assert ["holder", "other"] == order
    assert not task.is_alive()


def test_wait_ends_when_notified(clock):
    """One who waits gets the lock back after it was notified, and is told that it was."""
    condition = clock.condition(clock.lock())
    answers, here = [], []

    def wait():
        with condition:
            here.append(1)
            answers.append(condition.wait(5))

    tasks = [clock.spawn(f"waiter-{n}", wait) for n in range(3)]
    while len(here) < 3:
        clock.sleep(0.001)
    with condition:
        condition.notify()
    clock.sleep(0.02)
    one = list(answers)
    with condition:
        condition.notify_all()
    for task in tasks:
        task.join(5)

    assert (one, answers) == ([True], [True] * 3)


def test_wait_ends_after_its_timeout(clock):
    """Nobody notified: the wait says so."""
    condition = clock.condition(clock.lock())
    with condition:
        notified = condition.wait(0.01)
        again = condition.wait(0)

    assert (notified, again) == (False, False)


def test_join_ends_after_its_timeout(clock):
    """A thread that goes on is left alone."""
    go_on = []
    task = clock.spawn("slow", lambda: [clock.sleep(0.01) for _ in range(1000) if not go_on])
    task.join(0.02)
    alive = task.is_alive()
    go_on.append(1)
    task.join(5)

    assert (alive, task.is_alive()) == (True, False)


def test_system_threads_hold_up_no_exit():
    """A process that must end does not wait for a stalled request."""
    daemons = []
    SYSTEM.spawn("thread", lambda: daemons.append(threading.current_thread().daemon)).join(5)

    assert [True] == daemons


# --- the virtual clock alone --------------------------------------------------------------------------------------


def schedule(seed):
    """The order in which three threads take their turns."""
    turns = []
    with VirtualClock(seed) as clock:

        def work(name):
            for _ in range(5):
                clock.step("turn")
                turns.append(name)

        tasks = [clock.spawn(name, lambda name=name: work(name)) for name in "abc"]
        for task in tasks:
            task.join()
    return "".join(turns)


def test_seed_decides_the_schedule():
    """One seed is one schedule; several seeds are several."""
    schedules = [schedule(seed) for seed in range(10)]

    assert schedules == [schedule(seed) for seed in range(10)]
    assert len(set(schedules)) > 5


def test_virtual_time_costs_none():
    """A virtual day passes at once, and whoever has the earlier deadline goes first."""
    began, order = time.monotonic(), []
    with VirtualClock() as clock:

        def sleeper(hours):
            clock.sleep(hours * 3600)
            order.append((hours, clock.now))

        for task in [clock.spawn(str(hours), lambda hours=hours: sleeper(hours)) for hours in (24, 1, 5)]:
            task.join()

    assert [(1, 3600.0), (5, 18_000.0), (24, 86_400.0)] == order
    assert time.monotonic() - began < 5


def test_deadlock_is_told():
    """When everybody waits for ever, the main thread hears of it."""
    with VirtualClock() as clock:
        lock = clock.lock()
        lock.__enter__()
        task = clock.spawn("stuck", lock.__enter__)

        with pytest.raises(Deadlock, match="stuck"):
            task.join()


def test_killed_process_ends_where_it_waits():
    """All threads of a process end; those of another go on."""
    with VirtualClock() as clock:
        ticks = {"one": 0, "two": 0}

        def tick(name):
            for _ in range(10):
                clock.sleep(1)
                ticks[name] += 1

        first = clock.start("one", "ticker", lambda: clock.spawn("child", lambda: tick("one")).join())
        second = clock.start("two", "ticker", lambda: tick("two"))
        clock.sleep(3.5)
        clock.kill("one")
        second.join()

        assert not first.is_alive()
        assert ticks == {"one": 3, "two": 10}


def test_step_may_fail():
    """What the hook raises comes out of the step: that is how a simulator injects its faults."""
    steps = []

    def on_step(process, what):
        steps.append((process, what))
        if what == "COMMIT":
            raise ConnectionError

    with VirtualClock(on_step=on_step) as clock:
        clock.step("SELECT")

        with pytest.raises(ConnectionError):
            clock.step("COMMIT")
    assert [("main", "SELECT"), ("main", "COMMIT")] == steps
