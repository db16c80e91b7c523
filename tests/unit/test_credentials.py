"""Keys that change while the process runs: when their source is asked, and what it may be."""

import logging
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import ModuleType

import pytest
from pydantic import SecretStr

from outbox import ConfigError
from outbox.rocketmq.credentials import EARLY_S, REFRESH_S, Keyring
from outbox.settings import Destination, Settings

NOW = 1772690828.0
ENDPOINT = "https://1234.mqrest.cn-hangzhou.aliyuncs.com"
CANARY = "c4n4ry-" + "s3cr3t"


def keys(turn, *, ends=None, **fields):
    given = {"access_key_id": f"AKID{turn}", "access_key_secret": SecretStr(f"SECRET-{turn}"), **fields}
    return Destination(endpoint=ENDPOINT, expires_at=ends and datetime.fromtimestamp(ends, UTC), **given)


class Source:
    """Gives keys of the next number each time, which end so many seconds after they were asked for."""

    def __init__(self, life_s=None):
        self.asked = 0
        self.now = NOW
        self.failure = None
        self._life_s = life_s

    def __call__(self):
        self.asked += 1
        if self.failure:
            raise self.failure
        return keys(self.asked, ends=self._life_s and self.now + self._life_s)


def keys_at(keyring, source, *offsets):
    """The numbers of the keys in use so many seconds after now."""
    found = []
    for offset in offsets:
        source.now = NOW + offset
        found.append(int(keyring.current(NOW + offset).access_key_id.removeprefix("AKID")))
    return found


def events(caplog):
    """The records about keys; threads of other tests may have something to say as well."""
    return [record for record in caplog.records if record.message.startswith("outbox.credentials")]


def test_ask_again_after_a_while():
    """Keys of unknown life, such as those in files, are looked at every few seconds."""
    source = Source()
    keyring = Keyring(source)

    assert [2, 2, 3, 3, 4] == keys_at(keyring, source, 0, REFRESH_S - 1, REFRESH_S, 2 * REFRESH_S - 1, 2 * REFRESH_S)


def test_ask_before_the_keys_end():
    """Keys that say when they end are asked for again minutes before, and no sooner: it may cost a request."""
    source = Source(life_s=3600)
    keyring = Keyring(source)
    last = 3600 - EARLY_S

    assert [1, 1, 1, 2, 2, 3] == keys_at(keyring, source, 0, REFRESH_S, last - 1, last, 2 * last - 1, 2 * last)
    assert EARLY_S >= 300


def test_ask_for_short_lived_keys_now_and_then():
    """Keys that always end soon do not make every request ask."""
    source = Source(life_s=60)
    keyring = Keyring(source)

    assert [2, 2, 3, 3] == keys_at(keyring, source, 0, REFRESH_S - 1, REFRESH_S, REFRESH_S + 1)


def test_ask_at_once_when_refused():
    """Refused keys are asked for again before the next request, once: a dozen refusals come at a time."""
    source = Source(life_s=3600)
    keyring = Keyring(source)
    before = keys_at(keyring, source, 0, 2)
    keyring.refused()
    at_once = keys_at(keyring, source, 2.1, 2.2)
    keyring.refused()

    assert ([1, 1], [2, 2]) == (before, at_once)
    assert [2, 2, 3, 3] == keys_at(keyring, source, 2.3, 3.0, 3.2, 60)


def test_ask_sooner_when_the_clock_jumps():
    """A clock that is set back must not keep old keys in use for as long as it was wrong."""
    source = Source()
    keyring = Keyring(source)

    assert [2, 3, 3, 4] == keys_at(keyring, source, 0, -3600, -3599, 7200)


def test_keep_the_keys_when_the_source_fails(caplog):
    """What cannot be read, or is half written, changes nothing; the log says so, and it is tried again later."""
    source = Source()
    keyring = Keyring(source)
    keys_at(keyring, source, 0)
    source.failure = ConfigError("OUTBOX_ACCESS_KEY_SECRET_FILE", "names a file without text")
    kept = keys_at(keyring, source, REFRESH_S, REFRESH_S + 1)
    source.failure = RuntimeError(CANARY)
    kept += keys_at(keyring, source, 2 * REFRESH_S)
    source.failure = None

    assert [2, 2, 2] == kept
    assert [5] == keys_at(keyring, source, 3 * REFRESH_S)
    told = [(record.message, record.destination, record.error) for record in events(caplog)]
    assert ("outbox.credentials_unavailable", "default", "RuntimeError") == told[1]
    assert "names a file without text" in told[0][2]


@pytest.mark.parametrize("given", [None, keys(2).model_copy(update={"access_key_id": "line\r\nX: 1"}), {}])
def test_keep_the_keys_when_the_source_gives_none(given):
    """Only what can be sent takes the place of keys that could."""
    given = iter([keys(1), keys(2), given, keys(3)])
    keyring = Keyring(lambda: next(given))

    assert [2, 2, 3] == keys_at(keyring, Source(), 0, REFRESH_S, 2 * REFRESH_S)


def test_raise_when_there_are_no_keys_to_begin_with():
    """Without any keys nothing can be published, which start-up must say."""
    source = Source()
    source.failure = ConfigError("OUTBOX_ACCESS_KEY_ID", "missing")

    with pytest.raises(ConfigError, match="OUTBOX_ACCESS_KEY_ID: missing"):
        Keyring(source)


def test_ask_in_one_thread_while_others_go_on():
    """A source that takes its time holds up the one thread that asks it."""
    asked, answer = threading.Event(), threading.Event()
    turns = iter([1, 2, 3])

    def source():
        turn = next(turns)
        if turn == 3:
            asked.set()
            answer.wait(5)
        return keys(turn)

    keyring = Keyring(source)
    first = keyring.current(NOW)
    thread = threading.Thread(target=keyring.current, args=(NOW + REFRESH_S,))
    thread.start()
    assert asked.wait(5)
    meanwhile = keyring.current(NOW + REFRESH_S)
    answer.set()
    thread.join()

    assert keys(2) == first == meanwhile
    assert keys(3) == keyring.current(NOW + REFRESH_S)


@pytest.mark.parametrize(("life_s", "later_s"), [(600, 590), (None, 3600)], ids=["ending", "long unseen"])
def test_wait_for_the_thread_that_asks(life_s, later_s):
    """Where the keys there are will hardly do, a dozen requests wait for the one that asks, and it asks once."""
    asked, answer = threading.Event(), threading.Event()
    source = Source(life_s)

    def slow_source():
        if source.now > NOW:
            asked.set()
            answer.wait(5)
        return source()

    keyring = Keyring(slow_source)
    (first,) = keys_at(keyring, source, 0)
    source.now = NOW + later_s
    with ThreadPoolExecutor(4) as threads:
        found = [threads.submit(keyring.current, source.now) for _ in range(4)]
        assert asked.wait(5)
        answer.set()
        numbers = {one.result().access_key_id for one in found}

    assert ({f"AKID{first + 1}"}, first + 1) == (numbers, source.asked)


def test_ask_for_keys_that_ended_before_their_first_use():
    """A process may have its keys long before it has anything to publish."""
    source = Source(life_s=3600)
    keyring = Keyring(source)

    assert [2, 2] == keys_at(keyring, source, 3600, 3601)


def test_hide_the_secrets_of_now_and_before(caplog):
    """An answer to the last request that was signed with the old keys may echo them."""
    caplog.set_level(logging.DEBUG, logger="outbox")
    source = iter([keys(1), keys(1), keys(2, security_token=SecretStr("TOKEN-2"))])
    keyring = Keyring(lambda: next(source))
    keyring.current(NOW)
    keyring.current(NOW + REFRESH_S)

    assert {"SECRET-1", "SECRET-2", "TOKEN-2", ""} == set(keyring.secrets())
    (changed,) = events(caplog)
    assert ("outbox.credentials_changed", "default") == (changed.message, changed.destination)
    assert "SECRET" not in str(vars(changed))


# From a callable of the application's


@pytest.fixture
def module(monkeypatch):
    """A module of the application's."""
    module = ModuleType("shop_keys")
    monkeypatch.setitem(sys.modules, "shop_keys", module)
    return module


def load(**settings):
    return Settings.from_mapping(
        {"ENDPOINT": ENDPOINT} | {key.upper(): value for key, value in settings.items()}, prefix=""
    )


def refusal(function, *args):
    """The error that a call ends in; no trace of the canary anywhere."""
    with pytest.raises(ConfigError) as caught:
        function(*args)
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


@pytest.mark.parametrize("ends", [NOW, "2026-03-05T06:07:08Z", datetime.fromtimestamp(NOW, UTC)])
def test_a_callable_gives_the_keys(module, ends):
    """Named by module and name, or given as itself where the configuration is Python; asked each time."""
    turns = iter("123456")

    def provide():
        turn = next(turns)
        return {"access_key_id": "STS." + turn, "access_key_secret": CANARY, "security_token": "T", "expires_at": ends}

    module.Keys = type("Keys", (), {"provide": staticmethod(provide)})
    named = load(credentials="shop_keys:Keys.provide")
    given = load(credentials=provide)

    assert ["STS.1", "STS.2"] == [named.destination().access_key_id for _ in range(2)]
    destination = given.destination()
    assert ("STS.3", NOW) == (destination.access_key_id, destination.expires_at.timestamp())
    assert CANARY == destination.access_key_secret.get_secret_value()
    assert CANARY not in repr((named, given, destination))


def test_a_named_destination_has_a_callable_of_its_own(module):
    """Each destination may have other keys from elsewhere."""
    module.provide = lambda: {"access_key_id": "STS.1", "access_key_secret": CANARY}
    named = {"billing": {"endpoint": ENDPOINT, "credentials": "shop_keys:provide"}}
    settings = Settings.from_mapping({"DESTINATIONS": named}, prefix="")

    assert "STS.1" == settings.destination("billing").access_key_id
    module.provide = dict
    problem = "OUTBOX_DESTINATIONS: billing.credentials: gives no usable keys: access_key_id, access_key_secret"
    assert refusal(settings.destination, "billing").startswith(problem)


@pytest.mark.parametrize("beside", ["access_key_id", "access_key_secret", "security_token", "access_key_secret_file"])
def test_a_callable_stands_alone(beside):
    """Of two sources of keys nobody could tell which one counts."""
    problem = refusal(lambda: load(credentials="shop_keys:provide", **{beside: CANARY}))

    assert "OUTBOX_CREDENTIALS: is set beside keys; give either them or what gives them" == problem


@pytest.mark.parametrize(
    "value", ["shop_keys", "shop_keys:", ":provide", "shop keys:provide", "a:b:c", 7, "import os; x"]
)
def test_a_callable_must_be_one(value):
    """What is not a callable, nor says where one is, stops start-up."""
    assert "OUTBOX_CREDENTIALS: is no callable; give it as module:name, such as shop.keys:provide" == refusal(
        lambda: load(credentials=value)
    )


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (None, "gives no usable keys: what it gives"),
        ([CANARY], "gives no usable keys: what it gives"),
        ({"access_key_id": "id"}, "gives no usable keys: access_key_secret"),
        ({"access_key_id": "i d", "access_key_secret": CANARY}, "gives no usable keys: access_key_id"),
        ({"access_key_id": "id", "access_key_secret": f"{CANARY}\n"}, "gives no usable keys: access_key_secret"),
        (
            {"access_key_id": "id", "access_key_secret": CANARY, "expires_at": "soon"},
            "gives no usable keys: expires_at",
        ),
        (
            {"access_key_id": "id", "access_key_secret": CANARY, "expires_at": datetime(2026, 3, 5)},
            "gives no usable keys: expires_at",
        ),
        ({"access_key_id": "id", "access_key_secret": CANARY, "token": CANARY}, "gives no usable keys: token"),
    ],
)
def test_a_callable_must_give_keys(given, problem):
    """What it gives is checked like every setting, and never repeated."""
    assert refusal(load(credentials=lambda: given).destination).startswith(f"OUTBOX_CREDENTIALS: {problem}; give ")


def test_a_callable_may_fail(module):
    """Its error is named by its class alone: the text may hold anything."""

    def provide():
        raise ValueError(CANARY)

    failing, missing, nowhere = (load(credentials=one) for one in (provide, "shop_keys:other", "no_such_module_1:keys"))

    assert "failed with ValueError" in refusal(failing.destination)
    assert "failed with AttributeError" in refusal(missing.destination)
    assert "failed with ModuleNotFoundError" in refusal(nowhere.destination)


def test_a_security_token_from_a_callable_needs_tls(module):
    """The rule for endpoints holds whoever gives the token: it is sent unsigned."""
    settings = load(
        endpoint="http://broker.example",
        allow_http=True,
        credentials=lambda: {"access_key_id": "STS.1", "access_key_secret": CANARY, "security_token": "T"},
    )

    assert "OUTBOX_ENDPOINT: must be https:// with a security token" in refusal(settings.destination)
