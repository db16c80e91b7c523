import re
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from outbox.emulator import Emulator
from tests.emulator_api import connect

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("*.txt"))
DATE = parsedate_to_datetime("Thu, 05 Mar 2026 06:07:08 GMT").timestamp()

# What each recorded request is answered with, when the same SDK's recorded publishes went before it.
EXPECTED = {
    "publish": ("201", None),
    "consume": ("200", None),
    "ack": ("404", "ReceiptHandleError"),
    "commit": ("404", "ReceiptHandleError"),
    "rollback": ("404", "ReceiptHandleError"),
}


def replay(path, *before, secret="FAKESECRET"):
    """Send recorded bytes to an emulator that lives on the recorded day; returns the last answer's status and code."""
    with Emulator(keys={"FAKEAKID": secret}) as emulator, connect(emulator.url) as bare:
        emulator.set_clock(DATE)
        for earlier in before:
            bare.sendall(earlier.read_bytes())
            assert bare.recv(65536).startswith(b"HTTP/1.1 201 ")
        emulator.advance(10)
        bare.sendall(path.read_bytes())
        answer = bare.recv(65536)
    code = re.search(rb"<(?:Error)?Code>(\w+)<", answer)
    return answer[9:12].decode(), code and code[1].decode()


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_recorded_requests_of_the_sdks_are_authentic(path):
    """Requests recorded from the official Python, Node and Go SDKs are let in and understood, byte for byte."""
    sdk, operation = path.stem.split("-")[:2]
    expected = EXPECTED[operation]
    if path.stem == "nodejs-publish-special-chars":
        # That SDK does not split ]]> inside CDATA, so its own request is not well-formed.
        expected = ("400", "MalformedXML")
    before = [path.with_name(f"{sdk}-publish-{kind}.txt") for kind in ("normal", "transactional")]

    assert expected == replay(path, *before)


def test_recorded_requests_are_all_here():
    """Three SDKs, eleven requests each."""
    assert 33 == len(GOLDEN)


def test_recorded_requests_fail_with_another_secret():
    """The recorded signatures are worth something: another secret does not make them."""
    publishes = [path for path in GOLDEN if path.stem.endswith("publish-normal")]

    assert [("403", "SignatureDoesNotMatch")] * 3 == [replay(path, secret="OTHER") for path in publishes]
