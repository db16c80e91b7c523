"""How a command gets at its host's settings."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import click

from outbox.wiring import Runtime

__all__ = ["Load", "with_runtime"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

#: Gives the runtime of whoever mounts the commands; called once a command, and not at all for ``--help``.
Load = Callable[[], Runtime]


def with_runtime(command: Callable[Concatenate[Runtime, _P], _T]) -> Callable[_P, _T]:
    """Have a command called with its host's runtime first, which is closed after."""

    @wraps(command)
    def run(*args: _P.args, **options: _P.kwargs) -> _T:
        context = click.get_current_context()
        load: Load = context.obj
        runtime = load()
        context.call_on_close(runtime.close)
        return command(runtime, *args, **options)

    # click's mark for lines that it must not wrap, which a docstring can hold only in its spelled-out form.
    run.__doc__ = (command.__doc__ or "").replace("\\b\n", "\b\n")
    return run
