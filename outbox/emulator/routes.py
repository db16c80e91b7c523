"""Which operation a request asks for, and its parameters. No I/O."""

import re
from functools import lru_cache
from typing import Literal, NamedTuple, get_args
from urllib.parse import unquote

from outbox.emulator.broker import TopicKey
from outbox.emulator.rejection import Rejection

__all__ = ["OPERATIONS", "Operation", "Route", "route"]

Operation = Literal["publish", "consume", "ack", "check", "commit", "rollback"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)

_MAX_REQUEST_LINE = 1024
_MAX_WAIT_S = 30
_MAX_BATCH = 16
_PATH = re.compile(r"/topics/([A-Za-z0-9_-]{1,64})/messages")
_OPERATION: dict[tuple[str, str | None], Operation] = {
    ("POST", None): "publish",
    ("GET", None): "consume",
    ("GET", "order"): "consume",
    ("GET", "pop"): "check",
    ("DELETE", None): "ack",
    ("DELETE", "commit"): "commit",
    ("DELETE", "rollback"): "rollback",
}
_PARAMETERS: dict[str, frozenset[str]] = {
    "publish": frozenset({"ns"}),
    "consume": frozenset({"ns", "consumer", "numOfMessages", "waitseconds", "tag", "trans"}),
    "check": frozenset({"ns", "consumer", "numOfMessages", "waitseconds", "trans"}),
    "ack": frozenset({"ns", "consumer", "trans"}),
    "commit": frozenset({"ns", "consumer", "trans"}),
    "rollback": frozenset({"ns", "consumer", "trans"}),
}


class Route(NamedTuple):
    """An operation on a topic, with the query's parameters as they came."""

    operation: Operation
    key: TopicKey
    parameters: dict[str, str]

    def group(self) -> str:
        """Return the ``consumer``.

        Raises:
            Rejection: ``InvalidQueryString`` when it is missing or empty.
        """
        group = self.parameters.get("consumer")
        if not group:
            raise Rejection("InvalidQueryString", "The parameter consumer is missing.")
        return group

    def limit(self) -> int:
        """Return ``numOfMessages``, 1 to 16.

        Raises:
            Rejection: ``InvalidQueryString`` when it is missing or no number, ``InvalidArgument`` out of range.
        """
        limit = self._number("numOfMessages")
        if limit is None:
            raise Rejection("InvalidQueryString", "The parameter numOfMessages is missing.")
        if not 1 <= limit <= _MAX_BATCH:
            raise Rejection("InvalidArgument", f"The value of numOfMessages is not between 1 and {_MAX_BATCH}.")
        return limit

    def wait_s(self) -> int:
        """Return ``waitseconds``: 0 when absent or negative (the PHP SDK sends -1), 30 at most.

        Raises:
            Rejection: ``InvalidQueryString`` when it is no number, ``InvalidArgument`` out of range.
        """
        wait_s = self._number("waitseconds") or 0
        if wait_s > _MAX_WAIT_S:
            raise Rejection("InvalidArgument", f"The value of waitseconds is not between 0 and {_MAX_WAIT_S}.")
        return max(wait_s, 0)

    def tags(self) -> frozenset[str]:
        """Return the tags of ``tag=A||B``; empty for every message, as with ``*``."""
        tags = {tag.strip() for tag in self.parameters.get("tag", "").split("||")}
        return frozenset() if "*" in tags else frozenset(tags - {""})

    def _number(self, name: str) -> int | None:
        text = self.parameters.get(name)
        if text is None:
            return None
        if not re.fullmatch(r"-?[0-9]{1,9}", text):
            raise Rejection("InvalidQueryString", f"The parameter {name} is not a number.")
        return int(text)


@lru_cache(maxsize=1024)
def route(method: str, target: str) -> Route:
    """Find the operation.

    Raises:
        Rejection: ``InvalidRequestURL`` or ``InvalidQueryString``, also for a parameter that the operation has not.
    """
    path, _, query = target.partition("?")
    match = _PATH.fullmatch(path)
    if match is None or len(f"{method} {target} HTTP/1.1") > _MAX_REQUEST_LINE:
        raise Rejection("InvalidRequestURL", "The request URL is not /topics/{topic}/messages, or is too long.")
    parameters = _parse(query)
    operation = _OPERATION.get((method, parameters.get("trans")))
    if operation is None:
        raise Rejection("InvalidQueryString", "The method and the parameter trans name no operation.")
    if unknown := parameters.keys() - _PARAMETERS[operation]:
        raise Rejection("InvalidQueryString", f"The parameter {min(unknown)[:64]} is not known to {operation}.")
    return Route(operation, TopicKey(parameters.get("ns", ""), match[1]), parameters)


def _parse(query: str) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        name, equals, value = pair.partition("=")
        if not equals or name in parameters:
            raise Rejection("InvalidQueryString", "The query is not of distinct name=value pairs.")
        parameters[name] = unquote(value)
    return parameters
