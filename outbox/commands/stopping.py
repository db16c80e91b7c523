"""A warm stop: the first signal asks, the second ends."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

__all__ = ["stopped_by_signals"]

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STOPPING = b"stopping: what is in flight is finished first; a second signal ends at once\n"
# Whoever ends at the second signal leaves no progress bar behind to do it.
_SHOW_CURSOR = b"\x1b[?25h"


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[list[int]]:
    """Have the first SIGTERM or SIGINT call ``stop``, and the second end the process; gives those received."""
    received: list[int] = []

    def on_signal(number: int, _frame: object) -> None:
        received.append(number)
        for each in _STOP_SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        # Not through sys.stderr, in the middle of whose own work the signal may have come.
        with suppress(OSError):
            os.write(2, (_SHOW_CURSOR if os.isatty(2) else b"") + _STOPPING)
        stop()

    before = {each: signal.signal(each, on_signal) for each in _STOP_SIGNALS}
    try:
        yield received
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
