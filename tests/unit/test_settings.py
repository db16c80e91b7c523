"""One schema, three ways of giving it; whatever is wrong is one line that names the key and tells no secret."""

import json
import logging
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from outbox import ConfigError
from outbox.settings import Destination, Settings

CANARY = "c4n4ry-" + "s3cr3t"
DEFAULTS = {
    "database_url": None,
    "table_schema": None,
    "broker_url": None,
    "endpoint": None,
    "instance_id": "",
    "group_id": "",
    "access_key_id": None,
    "access_key_secret": None,
    "security_token": None,
    "credentials": None,
    "allow_http": False,
    "environment": "default",
    "batch_size": 500,
    "concurrency": 16,
    "lease_s": 60,
    "request_timeout_s": 10,
    "max_attempts": 10,
    "backoff_base_s": 1,
    "backoff_max_s": 300,
    "http_engine": "auto",
    "sweep_s": 5,
    "retention_s": 604800,
    "nudge": True,
    "deliver_horizon_s": 3452400,
    "skip_failed_heads": frozenset(),
    "keep_sent": True,
    "destinations": {},
}
SECRETS = ["access_key_id", "access_key_secret", "security_token", "database_url", "broker_url"]
ENDPOINT = "https://1234.mqrest.cn-hangzhou.aliyuncs.com"
ACCESS = {"endpoint": ENDPOINT, "access_key_id": "LTAI5", "access_key_secret": CANARY}


def environ(**settings):
    """The environment that gives these settings."""
    return {f"OUTBOX_{name.upper()}": value for name, value in settings.items()}


def load(**settings):
    """The settings that an environment gives."""
    return Settings.from_env(environ(**settings))


def destinations(**named):
    """Settings with named destinations."""
    return load(destinations=json.dumps(named))


def refusal(function, *args, **kwargs):
    """The error that a call ends in; one line, which begins with the key, and no trace of the canary anywhere."""
    with pytest.raises(ConfigError) as caught:
        function(*args, **kwargs)
    shown = "".join(traceback.format_exception(caught.value))
    assert CANARY not in shown
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{caught.value.key}: ")
    return caught.value


# Where settings come from


def test_settings_have_defaults():
    """Nothing has to be given for settings to load: each command asks for what it needs."""
    settings = Settings.from_env({})

    assert DEFAULTS == {name: getattr(settings, name) for name in DEFAULTS}


def test_settings_have_no_other_keys():
    """Beside the documented keys there is only the file of each secret."""
    assert {*DEFAULTS, *(f"{name}_file" for name in SECRETS)} == set(Settings.model_fields)


def test_settings_come_from_the_process_environment(monkeypatch):
    """Without an argument the process's own environment is read, at the time of the call."""
    monkeypatch.setenv("OUTBOX_BATCH_SIZE", "7")

    assert 7 == Settings.from_env().batch_size


def test_settings_do_not_come_from_the_environment_by_chance(monkeypatch):
    """The constructor takes what it is given and looks nowhere else."""
    monkeypatch.setenv("OUTBOX_BATCH_SIZE", "7")
    monkeypatch.setenv("BATCH_SIZE", "8")

    assert 500 == Settings().batch_size


TEXTS_AND_VALUES = [
    ("allow_http", "true", True),
    ("allow_http", "1", True),
    ("nudge", "false", False),
    ("nudge", "no", False),
    ("keep_sent", "0", False),
    ("batch_size", "1000", 1000),
    ("batch_size", " 1000 ", 1000),
    ("backoff_base_s", "0.25", 0.25),
    ("lease_s", "30", 30),
    ("http_engine", "requests", "requests"),
    ("http_engine", "curl", "curl"),
    ("environment", "staging-2", "staging-2"),
    ("table_schema", "shop_outbox", "shop_outbox"),
    ("skip_failed_heads", "orders", {"orders"}),
    ("skip_failed_heads", " orders, invoices,,", {"orders", "invoices"}),
    ("skip_failed_heads", '["orders", "invoices"]', {"orders", "invoices"}),
    ("skip_failed_heads", "[]", set()),
    ("endpoint", ENDPOINT.upper() + "/", ENDPOINT),
    ("instance_id", "MQ_INST_1_BX", "MQ_INST_1_BX"),
]


@pytest.mark.parametrize(("name", "text", "value"), TEXTS_AND_VALUES, ids=map(str, range(len(TEXTS_AND_VALUES))))
def test_settings_read_texts(name, text, value):
    """An environment has only texts, and so may the frameworks' mappings."""
    loaded = [load(**{name: text}), Settings.from_mapping({name.upper(): text}, prefix="")]

    assert [value, value] == [getattr(settings, name) for settings in loaded]


def test_settings_read_plain_values():
    """A Flask config or Django's dict holds Python's own values."""
    given = {
        "NUDGE": False,
        "BATCH_SIZE": 7,
        "LEASE_S": 9.5,
        "SKIP_FAILED_HEADS": ["orders"],
        "DESTINATIONS": {"billing": ACCESS},
        "GROUP_ID": None,
    }
    django = Settings.from_mapping(given, prefix="")
    flask = Settings.from_mapping({f"OUTBOX_{key}": value for key, value in given.items()} | {"DEBUG": True})

    assert django == flask
    assert (False, 7, 9.5, {"orders"}, "") == (
        *(django.nudge, django.batch_size, django.lease_s, django.skip_failed_heads, django.group_id),
    )
    assert ENDPOINT == django.destination("billing").endpoint


@pytest.mark.parametrize("name", [name for name in DEFAULTS if name != "destinations"])
def test_settings_take_a_blank_for_nothing(name):
    """A template's line such as OUTBOX_GROUP_ID= leaves the default."""
    assert DEFAULTS[name] == getattr(load(**{name: ""}), name)


def test_settings_take_a_blank_inside_a_destination_for_nothing():
    """The same holds inside a named destination."""
    settings = destinations(billing=ACCESS | {"security_token": "", "group_id": None})

    assert settings.destination("billing").security_token is None


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("BATCHSIZE", "BATCH_SIZE"),
        ("batch_size", "BATCH_SIZE"),
        ("ENDPIONT", "ENDPOINT"),
        ("OUTBOX_LEASE_S", "LEASE_S"),
    ],
)
def test_settings_refuse_an_unknown_key_of_django(key, nearest):
    """The whole dict is ours, so a key that is no setting is a slip; the error names the nearest."""
    error = refusal(Settings.from_mapping, {key: 1}, prefix="")

    assert f"OUTBOX_{key}" == error.key
    assert f"did you mean {nearest}?" in str(error)


def test_settings_refuse_an_unknown_key_with_no_likeness():
    """Where nothing is near, nothing is guessed."""
    assert "take it out" in str(refusal(Settings.from_mapping, {"XYZ": 1}, prefix=""))


def test_settings_report_an_unknown_key_of_the_environment(caplog):
    """A key that is no setting is logged, and stops nobody: container platforms add such keys by themselves."""
    with caplog.at_level(logging.WARNING, "outbox"):
        settings = Settings.from_env(
            {"OUTBOX_BATCHSIZE": CANARY, "OUTBOX_TEST_X": "1", "PATH": "/bin", "outbox_x": "1"}
        )
    (record,) = caplog.records

    assert Settings() == settings
    assert ("outbox.unknown_setting", "OUTBOX_BATCHSIZE") == (record.message, record.key)
    assert "BATCH_SIZE" in record.problem
    assert CANARY not in repr(vars(record))


# What values may be

BOUNDS = [
    ("batch_size", 1, 10_000),
    ("concurrency", 1, 256),
    ("lease_s", 3, 86_400),
    ("request_timeout_s", 0.001, 300),
    ("max_attempts", 1, 1000),
    ("backoff_base_s", 0, 86_400),
    ("backoff_max_s", 1, 604_800),
    ("sweep_s", 0.1, 3600),
    ("retention_s", 0, 1_000_000_000),
    ("deliver_horizon_s", 0, 3_456_000),
]


@pytest.mark.parametrize(("name", "least", "most"), BOUNDS)
def test_settings_have_bounds(name, least, most):
    """The first and the last value are fine; the next ones are refused, with the value and the bounds."""
    beside = {"backoff_max_s": "604800"} if name == "backoff_base_s" else {}
    errors = [refusal(load, **beside | {name: str(value)}) for value in (least - 1, most + 1)]

    assert [least, most] == [getattr(load(**beside | {name: str(value)}), name) for value in (least, most)]
    assert [f"OUTBOX_{name.upper()}"] * 2 == [error.key for error in errors if "; give" in str(error)]


WRONG = [
    ("batch_size", "abc"),
    ("batch_size", "1.5"),
    ("max_attempts", "ten"),
    ("lease_s", "nan"),
    ("retention_s", "inf"),
    ("request_timeout_s", "0"),
    ("allow_http", "maybe"),
    ("nudge", "2"),
    ("http_engine", "httpx"),
    ("environment", "my env"),
    ("environment", "e" * 65),
    ("environment", "prod\n"),
    ("table_schema", 'a"b'),
    ("table_schema", "a.b"),
    ("skip_failed_heads", "or ders"),
    ("skip_failed_heads", '["orders", 7]'),
    ("skip_failed_heads", "[orders]"),
    ("skip_failed_heads", "o" * 65),
    ("broker_url", "localhost"),
    ("destinations", "{"),
    ("destinations", "[]"),
    ("destinations", "7"),
]


@pytest.mark.parametrize(("name", "text"), WRONG)
def test_settings_refuse_a_wrong_value(name, text):
    """The error names the key and says what to give instead."""
    error = refusal(load, **{name: text})

    assert f"OUTBOX_{name.upper()}" == error.key
    assert "; " in str(error)


def test_settings_show_a_number_that_is_out_of_bounds():
    """A number tells more than its length."""
    assert "OUTBOX_CONCURRENCY: got 300; give a whole number from 1 to 256" == str(refusal(load, concurrency="300"))


def test_settings_describe_any_other_value():
    """A text may be a secret that was put under the wrong key: it is described, not shown."""
    error = refusal(load, concurrency=CANARY)

    assert f"OUTBOX_CONCURRENCY: got {len(CANARY)} characters; give a whole number from 1 to 256" == str(error)


def test_settings_refuse_a_ceiling_below_the_first_backoff():
    """The longest wait cannot be shorter than the shortest; the error names the key to raise."""
    error = refusal(load, backoff_base_s="301")

    assert "OUTBOX_BACKOFF_MAX_S" == error.key
    assert "OUTBOX_BACKOFF_BASE_S" in str(error)


@pytest.mark.parametrize(("timeout_s", "lease_s", "deadline_s"), [("10", "60", 10), ("10", "9", 3), ("0.5", "3", 0.5)])
def test_settings_keep_a_request_well_inside_the_lease(timeout_s, lease_s, deadline_s):
    """A request may take its timeout, but never more than a third of the lease."""
    assert deadline_s == load(request_timeout_s=timeout_s, lease_s=lease_s).request_deadline_s


# What travels in a request

UNSIGNED = [
    "a b",
    "a/b",
    "a%20b",
    "a?b",
    "a&ns=b",
    "a#b",
    "a+b",
    "a=b",
    "a:b",
    "é",
    "a\n",
    "a\r\nb",
    "a\x00b",
    "x" * 65,
]


@pytest.mark.parametrize("name", ["instance_id", "group_id"])
@pytest.mark.parametrize("text", UNSIGNED)
def test_settings_refuse_what_would_be_encoded(name, text):
    """An instance or a group goes into the signed query, where nothing may be percent-encoded or split."""
    errors = [refusal(load, **{name: text}), refusal(destinations, billing=ACCESS | {name: text})]

    assert [f"OUTBOX_{name.upper()}", "OUTBOX_DESTINATIONS"] == [error.key for error in errors]


@pytest.mark.parametrize("name", ["access_key_id", "access_key_secret", "security_token"])
@pytest.mark.parametrize(
    "text", [f"{CANARY}\n", f"{CANARY}\r\nX: y", f" {CANARY}", f"{CANARY} ", "a b", "a\x00b", "clé", "\t"]
)
def test_settings_refuse_what_would_break_a_header(name, text):
    """Keys and tokens go into headers: a line break would begin another header, and a space is a slip of the hand."""
    errors = [refusal(load, **{name: text}), refusal(destinations, billing={name: text})]

    assert [f"OUTBOX_{name.upper()}", "OUTBOX_DESTINATIONS"] == [error.key for error in errors]


def test_settings_refuse_a_colon_in_the_key_id():
    """A colon ends the id in the Authorization header."""
    assert "OUTBOX_ACCESS_KEY_ID" == refusal(load, access_key_id="a:b").key


@pytest.mark.parametrize(
    "endpoint",
    [f"https://user:{CANARY}@example.com", "example.com", "ftp://example.com", f"{ENDPOINT}/x", f"{ENDPOINT}?a=b"],
)
def test_settings_refuse_an_endpoint(endpoint):
    """An endpoint is a scheme, a host and perhaps a port; it never holds a password."""
    errors = [refusal(load, endpoint=endpoint), refusal(destinations, billing={"endpoint": endpoint})]

    assert ["OUTBOX_ENDPOINT", "OUTBOX_DESTINATIONS"] == [error.key for error in errors]
    assert "billing.endpoint: " in str(errors[1])


def accepted(name, text):
    """The plain value of a setting that was given so; nothing where it was refused."""
    try:
        return load(**{name: text}).optional(name) or ""
    except ConfigError:
        return ""


@given(
    st.sampled_from(["instance_id", "group_id", "access_key_id", "access_key_secret", "security_token"]),
    st.text(max_size=8),
)
def test_settings_accept_only_what_is_sent_as_it_is(name, text):
    """Whatever is accepted is printable ASCII without a space, and the text that was given."""
    value = accepted(name, text)

    assert value in {"", text}
    assert all("!" <= character <= "~" for character in value)


# Secrets


def with_secrets():
    """Settings that hold the canary wherever a secret may stand."""
    return load(
        access_key_secret=CANARY,
        security_token=CANARY,
        database_url=f"postgresql+psycopg://shop:{CANARY}@db/shop",
        broker_url=f"amqp://shop:{CANARY}@mq//",
        destinations=json.dumps({"billing": ACCESS | {"security_token": CANARY}}),
        endpoint=ENDPOINT,
        access_key_id="LTAI5",
    )


@pytest.mark.parametrize(
    "show",
    [repr, str, format, lambda shown: str(shown.model_dump()), lambda shown: shown.model_dump_json()],
    ids=map(str, range(5)),
)
def test_settings_show_no_secret(show):
    """However settings or a destination are shown, secrets and passwords are not."""
    settings = with_secrets()

    assert CANARY not in show(settings)
    assert CANARY not in show(settings.destination())
    assert CANARY not in show(settings.destination("billing"))


def test_settings_give_secrets_plain_to_who_asks():
    """`require` and `optional` are the two ways to a plain secret."""
    settings = with_secrets()

    assert f"postgresql+psycopg://shop:{CANARY}@db/shop" == settings.require("database_url")
    assert CANARY == settings.optional("security_token")
    assert CANARY == settings.destination("billing").access_key_secret.get_secret_value()


@pytest.mark.parametrize(
    "destination",
    [
        CANARY,
        [CANARY],
        {"access_key_secret": [CANARY]},
        {"access_key_secret": {CANARY: CANARY}},
        {"access_key_secret": f"{CANARY} "},
        {"endpoint": CANARY},
        {"group_id": f"{CANARY}/"},
        {"unknown": CANARY},
        {"security_token": f"{CANARY}\n", "access_key_secret": CANARY},
    ],
)
def test_settings_tell_no_nested_secret(destination):
    """An error about a named destination repeats nothing of what was given."""
    error = refusal(destinations, billing=destination)

    assert "OUTBOX_DESTINATIONS" == error.key
    assert "billing" in str(error)


def test_settings_tell_no_number_that_may_be_a_secret():
    """Not even digits of a secret are shown."""
    errors = [
        refusal(Settings.from_mapping, {"ACCESS_KEY_SECRET": 12345}, prefix=""),
        refusal(destinations, billing=12345),
    ]

    assert [] == [error for error in errors if "12345" in str(error)]


@pytest.mark.parametrize("schema", [Settings, Destination])
def test_settings_tell_no_secret_to_their_programmer(schema):
    """The constructors raise pydantic's own errors, which hide what was given."""
    with pytest.raises(ValidationError) as caught:
        schema(**ACCESS | {"access_key_secret": f"{CANARY} ", "security_token": [CANARY]})
    assert CANARY not in str(caught.value)


def test_settings_are_immutable():
    """What was checked cannot be changed after."""
    settings = with_secrets()

    with pytest.raises(ValidationError):
        settings.batch_size = 0
    with pytest.raises(ValidationError):
        settings.destination().endpoint = ENDPOINT


# Secrets in files


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_settings_read_a_secret_from_its_file(name, ending, tmp_path):
    """A file's last line break is the editor's, not the secret's."""
    value = "redis://h/0" if name.endswith("_url") else "value"
    path = tmp_path / name
    path.write_bytes(f"{value}{ending}".encode())
    settings = [
        load(**{f"{name}_file": str(path)}),
        Settings.from_mapping({f"{name}_file".upper(): path}, prefix=""),
    ]

    assert [value, value] == [loaded.require(name) for loaded in settings]


def test_settings_read_a_secret_again_each_time(tmp_path):
    """A key that was rotated is picked up without a restart, and a process that needs none never looks."""
    path = tmp_path / "secret"
    settings = load(endpoint=ENDPOINT, access_key_id="LTAI5", access_key_secret_file=str(path))
    seen = []
    for secret in ("first", "second"):
        path.write_text(secret)
        seen.append(settings.destination().access_key_secret.get_secret_value())

    assert ["first", "second"] == seen


def test_settings_read_secrets_of_a_named_destination(tmp_path):
    """A named destination may keep its secrets in files, too."""
    path = tmp_path / "secret"
    path.write_text(CANARY)
    named = {"endpoint": ENDPOINT, "access_key_id": "LTAI5", "access_key_secret_file": str(path)}

    assert CANARY == destinations(billing=named).destination("billing").access_key_secret.get_secret_value()


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (None, "OUTBOX_ACCESS_KEY_SECRET_FILE"),
        (b"", "OUTBOX_ACCESS_KEY_SECRET_FILE"),
        (b"\r\n\n", "OUTBOX_ACCESS_KEY_SECRET_FILE"),
        (b"\xff\xfe", "OUTBOX_ACCESS_KEY_SECRET_FILE"),
        (f"{CANARY} ".encode(), "OUTBOX_ACCESS_KEY_SECRET"),
        (f"{CANARY}\nsecond line".encode(), "OUTBOX_ACCESS_KEY_SECRET"),
    ],
)
def test_settings_refuse_a_secret_file(content, key, tmp_path):
    """A file that is missing, empty or holds no such value is an error for who asks, and for nobody else."""
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    settings = load(access_key_secret_file=str(path), broker_url="redis://h/0")

    assert "redis://h/0" == settings.require("broker_url")
    assert key == refusal(settings.require, "access_key_secret").key


def test_settings_do_not_show_what_was_taken_for_a_path():
    """A secret under the key of its file is a likely slip."""
    assert (
        "OUTBOX_ACCESS_KEY_SECRET_FILE" == refusal(load(access_key_secret_file=CANARY).require, "access_key_secret").key
    )


@pytest.mark.parametrize("name", SECRETS)
def test_settings_refuse_a_secret_beside_its_file(name):
    """Of two values one would be ignored, so neither is taken."""
    error = refusal(
        load, **{name: "redis://h/0".removeprefix("" if name.endswith("url") else "redis:"), f"{name}_file": "/x"}
    )

    assert f"OUTBOX_{name.upper()}_FILE" == error.key


# What is missing


@pytest.mark.parametrize("name", [*SECRETS, "endpoint", "instance_id", "group_id", "table_schema"])
def test_settings_demand_what_is_needed(name):
    """A missing setting stops who needs it, and the error says what to give."""
    error = refusal(Settings().require, name)

    assert f"OUTBOX_{name.upper()}" == error.key
    assert "missing; give " in str(error)
    assert Settings().optional(name) is None


@pytest.mark.parametrize("name", ["endpoint", "access_key_id", "access_key_secret"])
def test_destination_needs(name):
    """A destination without endpoint or keys is an error that names the first one missing, in its own spelling."""
    given = {field: value for field, value in ACCESS.items() if field != name}
    default, billing = refusal(load(**given).destination), refusal(destinations(billing=given).destination, "billing")

    assert (f"OUTBOX_{name.upper()}", "OUTBOX_DESTINATIONS") == (default.key, billing.key)
    assert f"billing.{name}: missing; give " in str(billing)


# Destinations


def test_destination_holds_all_that_a_request_needs():
    """The default destination is made of the plain keys."""
    settings = load(**ACCESS, instance_id="MQ_INST_1", group_id="GID_shop", security_token="token")
    expected = Destination(**ACCESS, instance_id="MQ_INST_1", group_id="GID_shop", security_token="token")

    assert expected == settings.destination()


def test_destination_is_named():
    """A named destination takes nothing from the default one: keys never reach another's endpoint."""
    settings = load(
        **ACCESS,
        group_id="GID_shop",
        security_token="token",
        destinations=json.dumps({"billing": ACCESS | {"endpoint": "https://example.com", "instance_id": "MQ_INST_2"}}),
    )
    expected = Destination(
        **ACCESS | {"name": "billing", "endpoint": "https://example.com", "instance_id": "MQ_INST_2"}
    )

    assert expected == settings.destination("billing")


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, ("default",)),
        (ACCESS, ("default",)),
        ({"destinations": json.dumps({"billing": ACCESS, "audit": ACCESS})}, ("billing", "audit")),
        (ACCESS | {"destinations": json.dumps({"billing": ACCESS})}, ("default", "billing")),
        ({"group_id": "GID_shop", "destinations": json.dumps({"billing": ACCESS})}, ("default", "billing")),
    ],
    ids=["nothing", "default", "named", "both", "half a default"],
)
def test_destination_names(settings, names):
    """All destinations of which something is said; where nothing is said, the default one, to be asked for."""
    assert names == load(**settings).destination_names()


def test_destination_that_is_not_there():
    """Who names an unknown destination is told so."""
    error = refusal(destinations(billing=ACCESS).destination, "other")

    assert "OUTBOX_DESTINATIONS" == error.key
    assert "'other'" in str(error)


@pytest.mark.parametrize("name", ["default", "", "a b", "a/b", "é", "x" * 65])
def test_destination_refuses_a_name(name):
    """A name is one that a message can have, and the plain keys are the default's only place."""
    assert "OUTBOX_DESTINATIONS" == refusal(destinations, **{name: ACCESS}).key


def test_destination_refuses_an_unknown_key():
    """A slip inside a named destination is told, with the nearest key."""
    assert "billing.endpont: no such setting; did you mean endpoint?" in str(
        refusal(destinations, billing={"endpont": 1})
    )


HTTP = "http://broker.example.com"


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:8080", "http://localhost", "http://[::1]:80"])
@pytest.mark.parametrize("token", [None, "token"])
def test_destination_may_be_this_machine_over_http(endpoint, token):
    """Nothing on the loopback interface can be overheard."""
    assert endpoint == load(**ACCESS | {"endpoint": endpoint, "security_token": token}).destination().endpoint


def test_destination_over_http_must_be_allowed():
    """Whoever reads a request can send it again, so http:// needs the operator's word."""
    error = refusal(load(**ACCESS | {"endpoint": HTTP}).destination)

    assert "OUTBOX_ENDPOINT" == error.key
    assert "OUTBOX_ALLOW_HTTP" in str(error)
    assert HTTP == load(**ACCESS | {"endpoint": HTTP}, allow_http="true").destination().endpoint


def test_destination_with_a_token_is_never_http():
    """A security token is sent unsigned: over http:// it could be taken, so no setting allows that."""
    named = ACCESS | {"endpoint": HTTP, "security_token": "token"}
    settings = load(**named, allow_http="true", destinations=json.dumps({"billing": named}))
    errors = [refusal(settings.destination, name) for name in ("default", "billing")]

    assert ["OUTBOX_ENDPOINT", "OUTBOX_DESTINATIONS"] == [error.key for error in errors if "https://" in str(error)]
