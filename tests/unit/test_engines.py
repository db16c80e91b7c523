"""Which HTTP engine there is, with pycurl and without."""

import sys

import pytest

from outbox.errors import ConfigError
from outbox.rocketmq.curl import CurlTransport
from outbox.rocketmq.engines import engine_named
from outbox.rocketmq.transport import RequestsTransport

ENDPOINT = "https://broker.example"


@pytest.fixture
def without_pycurl(monkeypatch):
    """As in an installation without the extra."""
    monkeypatch.setattr(sys, "meta_path", [_NoPycurl(), *sys.meta_path])
    for name in ("pycurl", "outbox.rocketmq.curl", "outbox.rocketmq.curl_handle"):
        monkeypatch.delitem(sys.modules, name, raising=False)


class _NoPycurl:
    def find_spec(self, name, path=None, target=None):
        if name == "pycurl":
            raise ModuleNotFoundError(name)


@pytest.mark.parametrize(
    ("name", "kind", "has_loop"),
    [("auto", CurlTransport, True), ("curl", CurlTransport, True), ("requests", RequestsTransport, False)],
)
def test_engine_is_the_one_that_is_named(name, kind, has_loop):
    """``auto`` takes libcurl, where it is."""
    engine = engine_named(name)

    assert kind is type(engine.transport(ENDPOINT, pool_size=1))
    assert has_loop == (engine.loop_maker is not None)


@pytest.mark.usefixtures("without_pycurl")
def test_auto_does_without_pycurl():
    """``auto`` takes requests where libcurl is not to be had; ``curl`` says what to install."""
    assert isinstance(engine_named("auto").transport(ENDPOINT, pool_size=1), RequestsTransport)
    with pytest.raises(ConfigError, match=r"OUTBOX_HTTP_ENGINE.*rocketmq-outbox\[curl\]"):
        engine_named("curl")
