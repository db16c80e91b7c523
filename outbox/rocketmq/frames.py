"""Exceptions that leave the HTTP API's room without the frames they were raised in.

The variables of those frames are keys, tokens, signatures, receipt handles and bodies, and error trackers show
variables. Nothing that the network or the broker does is raised; what is raised is a defect of ours, the end of memory,
or a signal's exception, such as Celery's time limits, which come wherever the main thread happens to be.
"""

import traceback
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

__all__ = ["without_frames"]

P = ParamSpec("P")
R = TypeVar("R")


def without_frames(function: Callable[P, R]) -> Callable[P, R]:
    """Have what ``function`` raises show where it was raised, but no variables of the function or of what it called."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - raised again
            # This frame stays.
            del args, kwargs
            error.add_note("Raised at:\n" + "".join(traceback.format_tb(error.__traceback__)))
            error.__context__ = None
            raise error.with_traceback(None) from None

    return call
