"""Servers that take every message, and how fast anything could give them some."""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import md5
from pathlib import Path

__all__ = ["BODY", "has_nginx", "sink", "wrk"]

BODY = "x" * 500
DIGEST = md5(BODY.encode(), usedforsecurity=False).hexdigest().upper()
HANDLE = "<ReceiptHandle>$request_id</ReceiptHandle>"
NGINX = """
worker_processes 1; daemon off; pid {directory}/pid; error_log /dev/null;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_temp_path {directory}/body; client_body_buffer_size 64k;
  proxy_temp_path {directory}/a; fastcgi_temp_path {directory}/b;
  uwsgi_temp_path {directory}/c; scgi_temp_path {directory}/d;
  server {{
    listen 127.0.0.1:{port}; default_type text/xml; add_header x-mq-request-id 1;
    location / {{
      return 201 '<Message><MessageId>$request_id</MessageId><MessageBodyMD5>{digest}</MessageBodyMD5></Message>';
    }}
    location /topics/halves/ {{
      if ($request_method = DELETE) {{ return 204; }}
      return 201 '<Message><MessageId>$request_id</MessageId><MessageBodyMD5>{digest}</MessageBodyMD5>
        {handle}</Message>';
    }}
  }}
}}
"""


def has_nginx() -> str | None:
    """Where nginx is, None where it is not installed."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(command: list[str], port: int) -> Iterator[str]:
    """A server, from when it listens; its URL."""
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            until = time.monotonic() + 10
            while time.monotonic() < until:
                with socket.socket() as probe:
                    if not probe.connect_ex(("127.0.0.1", port)):
                        break
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


@contextmanager
def sink(delay_ms: int) -> Iterator[str]:
    """What takes the messages: nginx at 0 ms where there is one, else our own."""
    port = free_port()
    with ExitStack() as stack:
        nginx = has_nginx()
        if nginx and not delay_ms:
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            Path(directory, "conf").write_text(
                NGINX.format(directory=directory, port=port, digest=DIGEST, handle=HANDLE), encoding="ascii"
            )
            command = [nginx, "-c", f"{directory}/conf", "-p", directory]
        else:
            command = [sys.executable, str(Path(__file__).with_name("sink.py")), str(port), str(delay_ms), DIGEST]
        yield stack.enter_context(process(command, port))


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
