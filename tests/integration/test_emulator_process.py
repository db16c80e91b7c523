import signal
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import pytest

from outbox.emulator import Emulator
from tests.emulator_api import ApiClient, connect, raw_request
from tests.emulator_process import emulator_process


def start_poll(url):
    """A connection on which a long poll is under way."""
    bare = connect(url)
    with ApiClient(url) as client:
        target = client.target("orders", consumer="GID_1", numOfMessages=1, waitseconds=30)
        bare.sendall(raw_request(client, "GET", target))
    time.sleep(0.1)
    return bare


def test_serve_is_a_whole_emulator():
    """The process takes requests, keeps a ledger, and takes faults."""
    with emulator_process(strict_topics={"orders": "normal"}) as process, ApiClient(process.url) as client:
        published = client.publish("orders", "a")
        process.faults({"fault": "throttle", "count": 1}, {"fault": "refuse"})
        refused = [client.publish("orders", "b").code for _ in range(2)]
        process.clear_faults()
        process.advance(10)

        assert (201, ["QpsLimitExceeded", "AccessDenied"]) == (published.status, refused)
        assert 404 == client.publish("others", "a").status
        assert (4, ["a"]) == (process.ledger()["requests"], [m["body"] for m in process.ledger()["messages"]])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_ends_quickly_by_signal(number):
    """SIGTERM and SIGINT end the process cleanly, although a client polls."""
    with emulator_process() as process, start_poll(process.url) as bare:
        started = time.monotonic()
        process.process.send_signal(number)
        code = process.process.wait(5)

        assert 0 == code
        assert time.monotonic() - started < 1
        assert b"" == bare.recv(1)


def test_serve_tells_that_its_port_is_taken():
    """A port that somebody else listens at is an OSError."""
    from outbox.emulator import serve

    with Emulator() as emulator, pytest.raises(OSError, match="in use"):
        serve("127.0.0.1", urlsplit(emulator.url).port, {}, on_listening=print)


def test_emulator_tells_that_its_port_is_taken():
    """The thread's failure to listen is raised to whoever started it."""
    with Emulator() as emulator:
        second = Emulator(port=urlsplit(emulator.url).port)

        with pytest.raises(OSError, match="in use"):
            second.start()


def test_emulator_listens_on_loopback_only():
    """Unless told otherwise nobody else on the network gets in."""
    with Emulator() as emulator:
        assert emulator.url.startswith("http://127.0.0.1:")


def test_emulator_listens_where_it_is_told():
    """The URL names the host and port that were asked for, IPv6 in brackets."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    with Emulator(port=port) as emulator:
        assert f"http://127.0.0.1:{port}" == emulator.url
    if socket.has_ipv6:
        with Emulator("::1") as emulator, ApiClient(emulator.url) as client:
            assert emulator.url.startswith("http://[::1]:")
            assert 201 == client.publish("orders", "a").status


def test_emulator_comes_back_with_its_memory():
    """Stopped and started again it has the same URL and messages, as a broker that was unreachable for a while."""
    emulator = Emulator()
    with emulator, ApiClient(emulator.url) as client:
        client.publish("orders", "a")
        url = emulator.url
    unreachable = emulator.ledger()
    with pytest.raises(ConnectionRefusedError):
        connect(url)

    with emulator, ApiClient(emulator.url) as client:
        assert (url, ["a"]) == (emulator.url, client.consume("orders").bodies)
    assert ["a"] == [message["body"] for message in unreachable["messages"]]


def test_emulator_is_started_once():
    """Starting a running emulator is refused; stopping a stopped one is not."""
    emulator = Emulator()
    with emulator, pytest.raises(RuntimeError, match="running already"):
        emulator.start()
    emulator.stop()

    assert not [thread for thread in threading.enumerate() if thread.name == "outbox-emulator"]


def test_emulator_stops_quickly_while_clients_poll():
    """Stopping takes no longer for a long poll, whose connection ends."""
    emulator = Emulator().start()
    with start_poll(emulator.url) as bare:
        started = time.monotonic()
        emulator.stop()

        assert time.monotonic() - started < 1
        assert b"" == bare.recv(1)


def test_import_without_the_extra_says_what_to_install():
    """Where the packages are missing, the error names the extra."""
    program = "import sys; sys.modules['httptools'] = None; import outbox.emulator"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert 1 == run.returncode
    assert run.stderr.splitlines()[-1] == (
        "ImportError: outbox.emulator needs packages that are not installed: pip install 'rocketmq-outbox[emulator]'"
    )


def test_emulator_works_without_uvloop():
    """On platforms without uvloop, asyncio's own loop serves."""
    program = """
import sys
sys.modules["uvloop"] = None
from outbox.emulator import Emulator
from tests.emulator_api import ApiClient
with Emulator() as emulator, ApiClient(emulator.url) as client:
    emulator.fault("reset", op="consume")
    print(client.publish("orders", "a").status, emulator.ledger()["messages"][0]["body"])
    try:
        client.consume("orders")
    except ConnectionResetError:
        print("reset")
"""
    run = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)

    assert ("201 a\nreset\n", "") == (run.stdout, run.stderr)


def test_forked_process_does_not_hold_connections_open():
    """A child that was forked while a client was connected keeps neither that connection nor the port alive."""
    program = """
import os, signal, time
from http.client import RemoteDisconnected
from outbox.emulator import Emulator
from tests.emulator_api import ApiClient
with Emulator() as emulator, ApiClient(emulator.url, timeout=3) as client:
    client.publish("orders", "a")
    child = os.fork()
    if child == 0:
        time.sleep(10)
        os._exit(0)
    emulator.fault("accept_then_drop")
    try:
        client.publish("orders", "a")
    except RemoteDisconnected:
        print("dropped")
with ApiClient(emulator.url, timeout=3) as client:
    try:
        client.publish("orders", "a")
    except ConnectionRefusedError:
        print("refused")
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (0, "dropped\nrefused\n") == (run.returncode, run.stdout)
