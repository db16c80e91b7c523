import json
import re
from pathlib import Path

import pytest

from outbox.emulator.exchange import Answer
from outbox.emulator.faults import KINDS, Fault, FaultError, Faults


def happened(specification, requests=200, operation="publish", topic="orders"):
    faults = Faults()
    faults.add(specification)
    return [bool(faults.draw(operation, topic)) for _ in range(requests)]


@pytest.mark.parametrize(
    ("specification", "problem"),
    [
        ({}, "unknown fault None; known: accept_then_500, accept_then_drop, amnesia, "),
        ({"fault": "thrott1e"}, "unknown fault 'thrott1e'; known: .*, throttle, "),
        (
            {"fault": "slow", "second": 1},
            "unknown field 'second' of slow; known: count, fault, op, rate, seconds, seed, topic",
        ),
        ({"fault": "slow", "rate": 1.5}, "rate 1.5 is not between 0 and 1"),
        ({"fault": "slow", "rate": "often"}, "rate 'often' is not a number"),
        ({"fault": "slow", "count": 0}, "count 0 is not 1 or more"),
        ({"fault": "slow", "count": True}, "count True is not a whole number"),
        ({"fault": "slow", "count": 1.5}, "count 1.5 is not a whole number"),
        ({"fault": "slow", "topic": 7}, "topic 7 is not a text"),
        ({"fault": "slow", "seed": "x"}, "seed 'x' is not a whole number"),
        ({"fault": "slow", "seconds": -1}, "seconds -1 is not 0 or more"),
        ({"fault": "redirect", "status": 42}, "status 42 is not between 200 and 599"),
        ({"fault": "slow", "op": "send"}, "unknown op 'send'; known: publish, consume, ack, check, commit, "),
    ],
)
def test_add_refuses_nonsense(specification, problem):
    """A fault that cannot be is refused in one line that names what there is."""
    with pytest.raises(FaultError, match=f"^{problem}[^\n]*$"):
        Faults().add(specification)


def test_add_sets_all_or_none():
    """One bad fault in a list leaves everything as it was."""
    faults = Faults()

    with pytest.raises(FaultError):
        faults.add({"fault": "slow"}, {"fault": "nonsense"})

    assert [] == faults.describe()


def test_rate_follows_its_seed():
    """The same seed makes the same decisions, another seed others; about as many happen as the rate says."""
    first = happened({"fault": "slow", "rate": 0.3, "seed": 7})

    assert first == happened({"fault": "slow", "rate": 0.3, "seed": 7})
    assert first != happened({"fault": "slow", "rate": 0.3, "seed": 8})
    assert 30 <= sum(first) <= 90


def test_rate_draws_only_for_its_own_requests():
    """Other topics and operations do not disturb the random numbers of a fault."""
    specification = {"fault": "slow", "rate": 0.5, "seed": 7, "topic": "orders"}
    faults = Faults()
    faults.add(specification)
    decisions = []
    for _ in range(100):
        faults.draw("publish", "others")
        faults.draw("consume", "orders")
        decisions.append(bool(faults.draw("publish", "orders")))

    assert decisions == happened(specification, 100)


def test_rate_of_zero_never_and_of_one_always():
    """The ends of the range are certain."""
    assert {False} == set(happened({"fault": "slow", "rate": 0}))
    assert {True} == set(happened({"fault": "slow", "rate": 1}))
    assert {True} == set(happened({"fault": "slow"}))


def test_count_runs_out():
    """A counted fault happens so many times and is then no longer listed."""
    faults = Faults()
    faults.add({"fault": "slow", "count": 2})
    drawn = [len(faults.draw("publish", "orders")) for _ in range(3)]

    assert [1, 1, 0] == drawn
    assert [] == faults.describe()


def test_op_any_means_every_operation():
    """A fault works on its own operation unless told, and on all of them when told so."""
    assert [False] == happened({"fault": "slow"}, 1, "ack")
    assert [True] == happened({"fault": "slow", "op": "any"}, 1, "ack")
    assert [True] == happened({"fault": "lost_commit"}, 1, "commit")


def test_draw_ends_with_the_first_fault_instead_of_the_broker():
    """What answers in the broker's stead keeps later faults from being spent."""
    faults = Faults()
    faults.add({"fault": "slow"}, {"fault": "refuse", "count": 1}, {"fault": "accept_then_drop", "count": 1})

    assert ["slow", "refuse"] == [fault.name for fault in faults.draw("publish", "orders")]
    assert ["slow", "accept_then_drop"] == [fault.name for fault in faults.draw("publish", "orders")]


def test_describe_shows_what_is_set():
    """A fault is listed with everything it was set with, and what is left of its count."""
    faults = Faults()
    faults.add({"fault": "throttle", "count": 3, "topic": "orders", "retry_after_s": 2})
    faults.draw("publish", "orders")

    expected = {"op": "publish", "topic": "orders", "rate": 1.0, "count": 2, "seed": None, "retry_after_s": 2}
    assert [{"fault": "throttle", **expected}] == faults.describe()


def test_wrong_md5_is_always_wrong():
    """The digest is changed into another one, whatever it was, and nothing else is touched."""
    faults = Faults()
    faults.add({"fault": "wrong_md5"})
    (fault,) = faults.draw("publish", "orders")
    answer = Answer(201, b"<M><MessageBodyMD5>0123456789ABCDEF0123456789ABCDEF</MessageBodyMD5></M>")

    disturbed = KINDS["wrong_md5"].after(fault, answer)

    assert b"<M><MessageBodyMD5>123456789ABCDEF0123456789ABCDEF0</MessageBodyMD5></M>" == disturbed.body


def documented(name):
    """What the page says of a fault: its operation, what it takes, its example."""
    page = (Path(__file__).parents[2] / "docs" / "emulator.md").read_text()
    (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |") and "$E" in line]
    _, _, op, takes, _, example, _ = re.split(r" ?(?<!\\)\| ?", row)
    return op, takes, example


def _written(parameter):
    return "" if parameter.default is None else f" {parameter.default:{'g' if parameter.type is float else ''}}"


@pytest.mark.parametrize("name", KINDS)
def test_every_fault_is_documented(name):
    """The page on the emulator has each fault's operation, fields and defaults, and an example that works."""
    kind = KINDS[name]
    op, takes, example = documented(name)
    fields = [f"`{field}`{_written(one)}" for field, one in kind.parameters.items()]

    assert (f"`{kind.op}`", ", ".join(fields)) == (op, takes)
    assert name == Fault(json.loads(example.partition("'")[2].rpartition("'")[0])).name


def test_every_fault_is_in_the_help():
    """Whoever has only the command line finds each fault under its stage, with the operation that it strikes."""
    from outbox.commands.serving import emulator

    stages = re.split(r"Instead of the broker|After the broker|By a broker", emulator.help.partition("Example:")[0])[1:]
    for stage, text in zip(("instead", "after", "quirk"), stages, strict=True):
        told = re.findall(r"([a-z_0-9]+)(?: \((\w+)\))?", text.partition(":\n")[2])
        kinds = {(name, "" if kind.op == "publish" else kind.op) for name, kind in KINDS.items() if kind.stage == stage}
        assert kinds == set(told)
