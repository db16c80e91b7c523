"""The demo's judge: it must say so when a promise did not hold."""

from dataclasses import replace

import pytest

from outbox.demo.verdict import KILLED, Delivery, Evidence, Row, judge, pace

LOST = "what commits is published"
GHOST = "what rolls back is not"
FALSE = "sent: the broker has it"
UNCOUNTED = "every duplicate is accounted for"
ALTERED = "the bytes sent equal the row"
DISORDER = "order within each ordering key"


def row(number: int, **over) -> Row:
    """A message that was sent at once, the second or later of its customer."""
    same = {"key": f"order-{number}", "outbox_id": f"id-{number}", "message_id": f"M{number}", "state": "sent"}
    rest = {"ordering_key": "customer-1", "content": ("orders", number), "unknowns": (), "unknown_outcomes": 0}
    return Row(**{**same, **rest, **over})


def delivery(number: int, **over) -> Delivery:
    """The broker's side of it, a second and a half after the commit."""
    same = {"key": f"order-{number}", "outbox_id": f"id-{number}", "message_id": f"M{number}"}
    return Delivery(**{**same, "content": ("orders", number), "at": number + 1.5, **over})


@pytest.fixture
def honest() -> Evidence:
    """Three orders that went well, and a fourth that rolled back."""
    numbers = (1, 2, 3)
    return Evidence(
        committed={f"order-{number}": float(number) for number in numbers},
        rolled_back=frozenset({"order-4"}),
        rows=[row(number) for number in numbers],
        delivered=[delivery(number) for number in numbers],
    )


def broken(evidence: Evidence) -> dict[str, list[str]]:
    """What contradicts each promise that did not hold."""
    return {finding.promise: list(finding.broken) for finding in judge(evidence) if finding.broken}


def test_judge_finds_nothing_in_an_honest_story(honest):
    """Where all went well every promise held, and each is told with its counts."""
    told = {finding.promise: finding.found for finding in judge(honest)}

    assert {} == broken(honest)
    assert {
        LOST: "3 committed, 3 delivered, 0 lost",
        GHOST: "1 rolled back, 0 ghosts",
        FALSE: "3 sent, 3 in the broker's ledger",
        UNCOUNTED: "0 duplicates, 0 unknown outcomes",
        ALTERED: "3 deliveries, 0 altered",
        DISORDER: "1/1 keys in order",
    } == told


def test_judge_sees_a_lost_message(honest):
    """A committed order that the broker's ledger does not have is lost, whatever the outbox says."""
    evidence = replace(honest, rows=[*honest.rows[:2], row(3, state="pending")], delivered=honest.delivered[:2])

    assert {LOST: ["order-3"]} == broken(evidence)


def test_judge_sees_a_lost_row(honest):
    """A committed order without a row is lost, too: the shop is asked, not the outbox."""
    evidence = replace(honest, rows=honest.rows[:2], delivered=honest.delivered[:2])

    assert {LOST: ["order-3"]} == broken(evidence)


def test_judge_sees_a_ghost(honest):
    """An order that rolled back and was delivered is a ghost."""
    assert {GHOST: ["order-4"]} == broken(replace(honest, delivered=[*honest.delivered, delivery(4)]))


def test_judge_sees_a_false_sent(honest):
    """A row that is sent under a MessageId that the broker does not know was not sent."""
    evidence = replace(honest, rows=[row(1), row(2, message_id="M9"), row(3)])

    assert {FALSE: ["order-2"]} == broken(evidence)


def test_judge_sees_an_uncounted_duplicate(honest):
    """A duplicate needs an unknown outcome of its own row: what another row counted is no excuse."""
    rows = [row(1, unknowns=("Timeout",), unknown_outcomes=1), row(2), row(3)]

    assert {UNCOUNTED: ["id-2"]} == broken(replace(honest, rows=rows, delivered=[*honest.delivered, delivery(2)]))


def test_judge_accepts_a_counted_duplicate(honest):
    """A message may be delivered once more for each unknown outcome, and then the duplicate names the outcome."""
    rows = [row(1, unknowns=("Timeout", KILLED), unknown_outcomes=2), row(2), row(3)]
    evidence = replace(honest, rows=rows, delivered=[*honest.delivered, delivery(1), delivery(1)])
    (duplicate,) = evidence.duplicates

    assert {} == broken(evidence)
    assert ("id-1", 2, "Timeout or killed relay") == (duplicate.outbox_id, duplicate.again, duplicate.cause)


def test_judge_sees_altered_bytes(honest):
    """A delivery that differs from its row was altered."""
    evidence = replace(honest, delivered=[*honest.delivered[:2], delivery(3, content=("orders", 33))])

    assert {ALTERED: ["order-3"]} == broken(evidence)


def test_judge_sees_a_wrong_order(honest):
    """First deliveries of one key must be in the order of insertion."""
    evidence = replace(honest, delivered=[delivery(2), delivery(1), delivery(3)])

    assert {DISORDER: ["customer-1"]} == broken(evidence)


def test_judge_lets_unordered_messages_overtake(honest):
    """Messages without an ordering key may come in any order, and so may duplicates."""
    rows = [row(1, ordering_key=None), row(2, unknowns=("Timeout",), unknown_outcomes=1), row(3)]
    delivered = [delivery(2), delivery(1), delivery(3), delivery(2)]

    assert {} == broken(replace(honest, rows=rows, delivered=delivered))


def test_pace_measures_from_commit_to_first_delivery(honest):
    """A wait ends with the first delivery, and a message that came before its commit returned did not wait."""
    delivered = [delivery(1, at=0.9), delivery(2, at=2.5), delivery(3, at=7.0), delivery(3, at=9.0)]
    measured = pace(replace(honest, delivered=delivered))

    assert [0.0, 0.5, 4.0] == measured.waits
    assert (0.5, 4.0) == (measured.wait(0.5), measured.wait(0.95))
    assert 6.0 == measured.seconds
    assert 1 == measured.busiest


def test_pace_of_nothing_is_no_number(honest):
    """Where nothing was delivered there is no pace, and no error."""
    measured = pace(replace(honest, delivered=[]))

    assert measured.wait(0.5) != measured.wait(0.5)
    assert 0 == measured.busiest
