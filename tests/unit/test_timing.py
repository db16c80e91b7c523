"""What is believed of a broker's clock, and what requests are dated with."""

from email.utils import formatdate

import pytest

from outbox.rocketmq.timing import Timing, clock_words, epoch_of

NOW = 1772690828.0
DATE = "Thu, 05 Mar 2026 06:07:08 GMT"
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0


class World:
    """A machine whose wall clock is so many seconds behind the right time, and a broker that judges its dates.

    ``lie_s``: what is wrong with the ``Date`` of answers.
    """

    def __init__(self, behind_s=0.0, *, lie_s=0.0, https=False):
        self.behind_s = behind_s
        self.lie_s = lie_s
        self.passed_s = 0.0
        self.requests = 0
        self.timing = Timing(lambda: self.right - self.behind_s, lambda: self.passed_s, authenticated=https)

    @property
    def right(self):
        return NOW + self.passed_s

    def ask(self):
        """What comes of one request: taken, expired, or not sent."""
        if self.timing.refusal():
            return "refused"
        self.requests += 1
        signed = self.timing.now()
        taken = abs(signed - self.right) <= 900
        self.timing.learn(formatdate(self.right + self.lie_s), formatdate(signed), taken=taken)
        return "taken" if taken else "expired"

    def ask_often(self, times=5, every_s=10.0):
        outcomes = []
        for _ in range(times):
            outcomes.append(self.ask())
            self.passed_s += every_s
        return outcomes

    @property
    def error_s(self):
        """How far the next request's date is from the right time."""
        return self.timing.now() - self.right


@pytest.mark.parametrize("https", [False, True])
@pytest.mark.parametrize("behind_s", [0.0, 59.0, -59.0])
def test_date_by_the_wall_clock_while_it_is_right(behind_s, https):
    """What is off by less than a minute needs no correction."""
    world = World(behind_s, https=https)

    assert ["taken"] * 5 == world.ask_often()
    assert -behind_s == world.error_s
    assert behind_s == world.timing.offset_s


@pytest.mark.parametrize("https", [False, True])
@pytest.mark.parametrize("behind_s", [2 * MINUTE, 13 * MINUTE, -2 * MINUTE, -13 * MINUTE])
def test_date_by_the_brokers_clock_once_it_is_known(behind_s, https):
    """A clock that drifts towards the limit is corrected before the broker refuses its dates."""
    world = World(behind_s, https=https)
    before = world.error_s

    assert ["taken"] * 5 == world.ask_often()
    assert (-behind_s, 0.0) == (before, world.error_s)


@pytest.mark.parametrize("behind_s", [16 * MINUTE, -16 * MINUTE, 23 * HOUR, -23 * HOUR])
def test_follow_an_authenticated_clock_for_up_to_a_day(behind_s):
    """Over https the endpoint itself says what time it is: one request expires, the next is taken."""
    world = World(behind_s, https=True)

    assert ["expired", "taken", "taken", "taken", "taken"] == world.ask_often()
    assert 0.0 == world.error_s


@pytest.mark.parametrize(
    ("behind_s", "https"),
    [(16 * MINUTE, False), (-16 * MINUTE, False), (23 * HOUR, False), (25 * HOUR, True), (-25 * HOUR, True)],
)
def test_refuse_to_send_what_would_expire(behind_s, https):
    """Further off than is followed: one request a minute asks again, and what is not sent says why."""
    world = World(behind_s, https=https)
    outcomes = world.ask_often(13)

    assert (["expired"] + ["refused"] * 5) * 2 + ["expired"] == outcomes
    assert -behind_s == world.error_s, "never corrected"
    world.passed_s -= 5
    fault = world.timing.refusal()
    assert ("ClockOff", False, behind_s) == (fault.code, fault.accepted, fault.clock_offset_s)
    assert f"the broker's clock is {abs(behind_s):.0f} s " in fault.text


def test_send_again_as_soon_as_the_clock_is_set():
    """Setting the clock right takes effect at once, although no answer has told."""
    world = World(2 * HOUR)
    before = world.ask_often(2)
    world.behind_s = 0.0

    assert ["expired", "refused"] == before
    assert 0.0 == world.timing.offset_s
    assert ["taken"] * 3 == world.ask_often(3)


def test_date_by_the_wall_clock_again_as_soon_as_it_is_set():
    """A correction does not outlive what it corrected, nor does it add to a clock that was set."""
    world = World(10 * MINUTE)
    world.ask_often()
    world.behind_s = 0.0

    assert 0.0 == world.error_s
    assert ["taken"] * 3 == world.ask_often(3)


@pytest.mark.parametrize("https", [False, True])
@pytest.mark.parametrize("lie_s", [HOUR, -HOUR, 17 * MINUTE, 400 * DAY])
def test_pass_over_a_date_that_cannot_be_the_brokers(lie_s, https):
    """The broker has taken ours: a Date that is further off changes nothing and stops nothing."""
    world = World(lie_s=lie_s, https=https)

    assert ["taken"] * 20 == world.ask_often(20)
    assert (0.0, None) == (world.error_s, world.timing.offset_s)


@pytest.mark.parametrize("https", [False, True])
@pytest.mark.parametrize("lie_s", [14 * MINUTE, -14 * MINUTE])
def test_survive_a_lie_within_the_bounds(lie_s, https):
    """A lie that can be believed moves our date by what the broker still takes, once, and no further."""
    world = World(lie_s=lie_s, https=https)

    assert ["taken"] * 20 == world.ask_often(20)
    assert abs(world.error_s) <= 14 * MINUTE


@pytest.mark.parametrize("https", [False, True])
@pytest.mark.parametrize("behind_s", [13 * MINUTE, 20 * MINUTE])
def test_recover_from_a_lie_that_was_believed(behind_s, https):
    """Requests expire with it, so it was none of the broker's; and once the clock is set nothing of it is left."""
    world = World(behind_s, lie_s=-26 * MINUTE, https=https)
    world.ask_often(30)
    world.behind_s = world.lie_s = 0.0
    world.passed_s += MINUTE
    world.ask_often(2)

    assert ["taken"] * 5 == world.ask_often()
    assert 0.0 == world.error_s


@pytest.mark.parametrize("https", [False, True])
def test_notice_a_broker_whose_clock_is_set(https):
    """The broker may be the one whose clock was wrong: within a minute requests are taken again."""
    world = World(2 * HOUR, https=https)
    world.ask_often(10)
    world.behind_s, world.passed_s = 0.0, world.passed_s + 2 * HOUR
    world.ask_often(7)

    assert ["taken"] * 3 == world.ask_often(3)
    assert 0.0 == world.error_s


def test_learn_nothing_from_what_is_no_date():
    """Neither an answer without a date nor one with nonsense."""
    world = World()
    for date in ("", "never", "Thu, 05 Mar 99999 06:07:08 GMT"):
        world.timing.learn(date, DATE, taken=True)
        world.timing.learn(date, DATE, taken=False)

    assert world.timing.offset_s is None
    assert world.timing.refusal() is None


@pytest.mark.parametrize(
    "date", ["", "never", "Thu, 05 Mar 99999 06:07:08 GMT", "0 0 0 0 0", "5 Mar 2026 06:07:08 +9999"]
)
def test_epoch_of_what_is_no_date(date):
    """Dates come from outside, too."""
    assert epoch_of(date) is None


@pytest.mark.parametrize("date", [DATE, "Thu, 05 Mar 2026 06:07:08", "Thu, 05 Mar 2026 06:07:08 -0000"])
def test_epoch_of_a_date(date, monkeypatch):
    """The form that every HTTP server sends; one without a zone is not read in this machine's."""
    import time

    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    try:
        assert NOW == epoch_of(date)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_words_say_who_is_ahead():
    """The sign is put into words, for whoever has to set a clock."""
    assert "the broker's clock is 90 s ahead of this machine's" == clock_words(90.4)
    assert "the broker's clock is 90 s behind this machine's" == clock_words(-90.4)
