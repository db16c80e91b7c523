"""The server side of the HTTP API, for development and tests: one process, everything in memory.

It publishes, consumes, acknowledges, checks, commits and rolls back as the service documents it, satisfies the official
SDKs, keeps a ledger of everything that was accepted, and misbehaves on demand. See ``docs/emulator.md``.
"""

try:
    import httptools as _httptools  # noqa: F401 - asked for first, so that its absence is told in our words
except ImportError as error:
    raise ImportError(
        "outbox.emulator needs packages that are not installed: pip install 'rocketmq-outbox[emulator]'",
        name=error.name,
    ) from error

from outbox.emulator.control import BANNER
from outbox.emulator.faults import FaultError
from outbox.emulator.server import Emulator, serve
from outbox.emulator.stored import Rules

__all__ = ["BANNER", "Emulator", "FaultError", "Rules", "serve"]
