"""One object for each process, made when the process first asks for it."""

import os
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["PerProcess"]

T = TypeVar("T")


class PerProcess(Generic[T]):
    """Gives each process an object of its own.

    A forked child makes its own and leaves its parent's alone. It does not use that one: a connection shared with the
    parent would hand one process the other's answers. It does not drop it: some drivers say goodbye to the server when
    a connection is collected, and the server would hang up on the parent. And it waits for no lock that was held at the
    fork by a thread that the child does not have.

    Args:
        make: called in each process at first use; twice if two threads come first together, and one result is forgotten
            unused, so it must not open anything.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[int, T] = {}

    def __call__(self) -> T:
        """This process's object."""
        pid = os.getpid()
        if pid not in self._made:
            self._made.setdefault(pid, self._make())
        return self._made[pid]
