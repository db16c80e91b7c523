"""Servers that take every message, and how fast anything could give them some."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import md5
from pathlib import Path

__all__ = ["BODY", "DIGEST", "KEYS", "can_delay", "emulator", "has_nginx", "sink", "wrk"]

#: Of every message.
BODY = "x" * 500
#: As the broker tells it.
DIGEST = md5(BODY.encode(), usedforsecurity=False).hexdigest().upper()
#: The AccessKey that everything signs with.
KEYS = {"OUTBOX_ACCESS_KEY_ID": "FAKEAKID", "OUTBOX_ACCESS_KEY_SECRET": "FAKESECRET"}
# Debian's libnginx-mod-http-echo; a module of nginx's own can only delay whom it limits.
_ECHO = Path("/usr/lib/nginx/modules/ngx_http_echo_module.so")
_NGINX = """
{load} worker_processes 1; daemon off; pid {directory}/pid; error_log /dev/null;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_temp_path {directory}/body; client_body_buffer_size 64k;
  proxy_temp_path {directory}/a; fastcgi_temp_path {directory}/b;
  uwsgi_temp_path {directory}/c; scgi_temp_path {directory}/d;
  server {{
    listen 127.0.0.1:{port}; default_type text/xml; add_header x-mq-request-id 1;
    location / {{ {answer} }}
    location @published {{ {published} }}
    location /topics/halves/ {{
      if ($request_method = DELETE) {{ return 204; }}
      return 201 '{message}<ReceiptHandle>$request_id</ReceiptHandle></Message>';
    }}
  }}
}}
"""
_MESSAGE = f"<Message><MessageId>$request_id</MessageId><MessageBodyMD5>{DIGEST}</MessageBodyMD5>"


def has_nginx() -> str | None:
    """Where nginx is, None where it is not installed."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


def can_delay() -> bool:
    """Whether nginx can be the sink that takes its time, too."""
    return bool(has_nginx()) and _ECHO.exists()


@contextmanager
def sink(delay_ms: int) -> Iterator[str]:
    """What takes the messages; its URL. One process of nginx, or else of our own, which costs more than it measures."""
    port = _free_port()
    with tempfile.TemporaryDirectory() as directory:
        if can_delay() if delay_ms else has_nginx():
            command = _nginx(directory, port, delay_ms)
        else:
            command = [sys.executable, str(Path(__file__).with_name("sink.py")), str(port), str(delay_ms), DIGEST]
        with _process(command, port) as url:
            yield url


@contextmanager
def emulator() -> Iterator[str]:
    """Our emulator, which checks every signature and keeps every message; its URL."""
    port = _free_port()
    with _process([sys.executable, "-m", "outbox.cli", "emulator", "--port", str(port)], port, KEYS) as url:
        yield url


def wrk(url: str, connections: int, seconds: int) -> float | None:
    """POSTs a second of wrk on the same sink; None without wrk."""
    if not shutil.which("wrk"):
        return None
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f'wrk.method = "POST"\nwrk.body = "{"x" * 800}"\n')
        script.flush()
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "-s",
            script.name,
            f"{url}/topics/orders/messages",
        ]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(told.split("Requests/sec:")[1].split()[0])


def _nginx(directory: str, port: int, delay_ms: int) -> list[str]:
    published = f"return 201 '{_MESSAGE}</Message>';"
    text = _NGINX.format(
        directory=directory,
        port=port,
        load=f"load_module {_ECHO};" if delay_ms else "",
        # From a place of its own, so that the delayed answer has a length, as the other has.
        answer=f"echo_sleep {delay_ms / 1000}; echo_exec @published;" if delay_ms else published,
        published=published,
        message=_MESSAGE,
    )
    Path(directory, "conf").write_text(text, encoding="ascii")
    return [str(has_nginx()), "-c", f"{directory}/conf", "-p", directory]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _process(command: list[str], port: int, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """A server, from when it listens."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=os.environ | (environment or {}), **quiet) as server:
        try:
            _wait_for(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def _wait_for(port: int) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens on port {port}")
