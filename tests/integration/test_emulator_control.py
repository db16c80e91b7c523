import json
import time
import urllib.error
import urllib.request

import pytest

from outbox.emulator import BANNER, Emulator, FaultError, Rules
from tests.emulator_api import ApiClient


@pytest.fixture
def client(emulator):
    with ApiClient(emulator.url) as client:
        yield client


@pytest.fixture
def ask(emulator):
    """A function that sends JSON to /_emulator and returns (status, JSON)."""

    def ask(method, path, document=None):
        data = document if document is None or isinstance(document, bytes) else json.dumps(document).encode()
        request = urllib.request.Request(f"{emulator.url}/_emulator{path}", data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    return ask


def test_about_says_what_it_is(ask):
    """Nobody should take the emulator for the service."""
    status, about = ask("GET", "")

    assert (200, BANNER) == (status, about["about"])
    assert "is not the service" in BANNER
    assert {"stage": "after", "op": "publish", "takes": {"seconds": 1.0}} == about["faults"]["slow"]
    assert {"rate": 1.0, "count": None, "topic": None, "op": None, "seed": None} == about["every_fault_takes"]


def test_dead_letters_are_told():
    """What a group did not acknowledge in time, too often, is listed with the group."""
    with Emulator(rules=Rules(max_redeliveries=1)) as emulator, ApiClient(emulator.url) as client:
        message_id = client.publish("orders", "a").text("MessageId")
        for _ in range(2):
            client.consume("orders", "GID_1")
            emulator.advance(300)
        client.consume("orders", "GID_2")
        (dead,) = emulator.dead_letters()

        assert ("GID_1", message_id, "a", 1) == (dead["group"], dead["message_id"], dead["body"], dead["visible"])
        assert [] == client.consume("orders", "GID_1").messages
        with urllib.request.urlopen(f"{emulator.url}/_emulator/dead_letters") as answer:
            assert {"messages": [dead]} == json.load(answer)


def test_ledger_records_what_was_accepted(ask, client):
    """Each accepted message is there as it came, with when, and how often it became visible."""
    before = time.time()
    message_id = client.publish("orders", 'a "ü"', "TagA", {"KEYS": "k", "a": "1"}).text("MessageId")
    client.publish("halves", "half", properties={"__TransCheckT": 10})
    client.send("GET", "/nowhere")
    status, ledger = ask("GET", "/ledger")
    first, second = ledger["messages"]
    at = first.pop("at")

    assert (200, 3) == (status, ledger["requests"])
    expected = {"topic": "orders", "ns": "MQ_INST_1", "message_id": message_id, "tag": "TagA", "body": 'a "ü"'}
    assert {**expected, "properties": {"KEYS": "k", "a": "1"}, "visible": 1} == first
    assert (None, {"__TransCheckT": "10"}, 0) == (second["tag"], second["properties"], second["visible"])
    assert before <= at <= time.time()


def test_ledger_gives_a_part(ask, client):
    """Readers of long ledgers leave out what they know, and the bodies."""
    for body in ("a", "b", "c"):
        client.publish("orders", body)

    assert ["c"] == [message["body"] for message in ask("GET", "/ledger?after=2")[1]["messages"]]
    assert [] == ask("GET", "/ledger?after=9")[1]["messages"]
    assert ["body" in message for message in ask("GET", "/ledger?bodies=false")[1]["messages"]] == [False] * 3


@pytest.mark.parametrize("query", ["after=-1", "after=x", "bodies=no", "since=1"])
def test_ledger_refuses_other_queries(ask, query):
    """A query that is not understood is not ignored."""
    status, answer = ask("GET", f"/ledger?{query}")

    assert (400, "the ledger takes after=N (a whole number) and bodies=true|false") == (status, answer["error"])


def test_ledger_is_cleared(ask, client, emulator):
    """DELETE forgets the record and the count; consumers still get the messages."""
    client.publish("orders", "a")

    assert (200, {"requests": 0, "messages": []}) == ask("DELETE", "/ledger")
    assert ["a"] == client.consume("orders").bodies
    emulator.clear_ledger()
    assert {"requests": 0, "messages": []} == emulator.ledger()


def test_ledger_is_quick_for_many_messages(emulator, ask):
    """A hundred thousand messages are told in a few seconds, on a busy machine too."""
    from outbox.emulator.broker import TopicKey
    from outbox.emulator.publication import Publication

    publication = Publication.of({"MessageBody": "x" * 500, "Properties": "KEYS:k|a:1"}, time.time())

    def fill():
        for _ in range(100_000):
            emulator._site.broker.publish(TopicKey("", "orders"), publication, "A" * 24)

    emulator._call(fill)
    started = time.monotonic()
    _, ledger = ask("GET", "/ledger")

    assert 100_000 == len(ledger["messages"])
    assert time.monotonic() - started < 10


def test_faults_are_set_listed_and_cleared(ask, client):
    """One fault or a list; GET shows what may still happen."""
    ask("POST", "/faults", {"fault": "throttle", "count": 1})
    status, answer = ask("POST", "/faults", [{"fault": "slow", "seconds": 0, "rate": 0.5, "seed": 7}])
    client.publish("orders", "a")
    listed = ask("GET", "/faults")[1]["faults"]

    assert (200, ["throttle", "slow"]) == (status, [fault["fault"] for fault in answer["faults"]])
    expected = {"fault": "slow", "op": "publish", "topic": None, "rate": 0.5, "count": None, "seed": 7}
    assert [{**expected, "seconds": 0}] == listed
    assert (200, {"faults": []}) == ask("DELETE", "/faults")
    assert {"faults": []} == ask("GET", "/faults")[1]


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"fault": "thrott1e"}, "unknown fault 'thrott1e'; known: accept_then_500, "),
        ({"fault": "slow", "sec": 1}, "unknown field 'sec' of slow; known: count, fault, "),
        ([{"fault": "slow"}, 7], "a fault is a JSON object"),
        (7, "a fault is a JSON object"),
        (b"{", "not JSON: "),
        (b"\xff", "not JSON: "),
    ],
)
def test_faults_refuse_nonsense(ask, document, problem):
    """What cannot be set is answered with one line, and nothing is set."""
    status, answer = ask("POST", "/faults", document)

    assert 400 == status
    assert answer["error"].startswith(problem)
    assert "\n" not in answer["error"]
    assert {"faults": []} == ask("GET", "/faults")[1]


def test_fault_raises_in_the_caller(emulator):
    """The embedded emulator tells the same by an exception."""
    with pytest.raises(FaultError, match=r"^unknown fault 'thrott1e'; known: "):
        emulator.fault("thrott1e")


def test_clock_is_read_and_moved(ask, emulator):
    """advance_s lets time pass, set says what time it is; both run on from there."""
    now = ask("GET", "/clock")[1]["now"]
    advanced = ask("POST", "/clock", {"advance_s": 3600})[1]["now"]
    status, answer = ask("POST", "/clock", {"set": 1_772_690_828})

    assert time.time() == pytest.approx(now, abs=5)
    assert now + 3600 == pytest.approx(advanced, abs=5)
    assert (200, pytest.approx(1_772_690_828, abs=5)) == (status, answer["now"])
    assert 1_772_690_828 == pytest.approx(emulator.now(), abs=5)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"advance_s": -1},
        {"advance_s": "1"},
        {"advance_s": 1e12},
        {"set": 1, "advance_s": 1},
        {"set": -1},
        {"set": 1e300},
        {"set": 253402300799},
        b'{"set": NaN}',
        [],
        b"x",
    ],
)
def test_clock_refuses_nonsense(ask, document):
    """Only one known field with a sensible number moves the clock."""
    assert 400 == ask("POST", "/clock", document)[0]
    assert time.time() == pytest.approx(ask("GET", "/clock")[1]["now"], abs=5)


def test_advance_does_not_make_clients_late(client, emulator):
    """After a virtual day a client in real time is still let in, and so is one whose clock moved along."""
    emulator.advance(86400)

    assert 201 == client.publish("orders", "a").status
    emulator.set_clock(time.time() + 86400)
    assert "TimeExpired" == client.publish("orders", "b").code


def test_keys_come_and_go(ask, emulator):
    """A key is good from the moment it is let in until it is taken away; no answer repeats a secret."""

    def status(*credentials):
        with ApiClient(emulator.url, *credentials) as client:
            return client.publish("orders", "a").status

    old, new = ("FAKEAKID", "FAKESECRET"), ("NEWAKID", "NEWSECRET")
    both = ask("POST", "/keys", {"NEWAKID": "NEWSECRET"}), status(*old), status(*new)
    emulator.change_keys({"FAKEAKID": None})

    assert ((200, {"keys": ["FAKEAKID", "NEWAKID"]}), 201, 201) == both
    assert ((200, {"keys": ["NEWAKID"]}), 403, 201) == (ask("GET", "/keys"), status(*old), status(*new))


@pytest.mark.parametrize("document", [[], "NEWAKID", {"NEWAKID": ""}, {"": "secret"}, {"NEWAKID": 7}, b"{"])
def test_keys_refuse_nonsense(ask, document):
    """What is no id with a secret changes nothing."""
    status, answer = ask("POST", "/keys", document)

    assert 400 == status
    assert answer["error"].startswith(("the keys take ", "not JSON: "))
    assert {"keys": ["FAKEAKID"]} == ask("GET", "/keys")[1]


def test_begin_anew_forgets_everything(ask, client, emulator):
    """Between two tests: topics, groups, ledger, faults, keys and the clock are as at the start."""
    client.publish("orders", "a", properties={"__TransCheckT": 10})
    client.publish("orders", "b")
    client.consume("orders")
    emulator.advance(86_400)
    emulator.fault("refuse")
    emulator.change_keys({"FAKEAKID": None, "NEWAKID": "NEWSECRET"})
    status, about = ask("DELETE", "")
    found = client.consume("orders").messages, client.check("orders").messages, client.publish("orders", "c").status

    assert (200, BANNER) == (status, about["about"])
    assert ([], [], 201) == found
    assert (3, ["c"]) == (emulator.ledger()["requests"], [one["body"] for one in emulator.ledger()["messages"]])
    assert ({"faults": []}, {"keys": ["FAKEAKID"]}) == (ask("GET", "/faults")[1], ask("GET", "/keys")[1])
    assert 0 == pytest.approx(emulator.now() - time.time(), abs=5)


def test_unknown_endpoint_names_the_known(ask):
    """A slip in a path or method is told with what there is."""
    status, answer = ask("PUT", "/ledgers")

    assert 404 == status
    assert answer["error"].startswith("no such endpoint; known: GET /_emulator, DELETE /_emulator, ")
