"""Refusals: the error codes of the HTTP API and the status that each is answered with."""

__all__ = ["STATUS", "Rejection"]

STATUS = {
    "AccessDenied": 403,
    "InvalidAccessKeyId": 403,
    "SignatureDoesNotMatch": 403,
    "HTTPForbidden": 403,
    "InvalidAuthorizationHeader": 400,
    "MissingAuthorizationHeader": 400,
    "InvalidDateHeader": 400,
    "MissingDateHeader": 400,
    "TimeExpired": 408,
    "InvalidArgument": 400,
    "MalformedXML": 400,
    "InvalidContent": 400,
    "InvalidDigest": 400,
    "InvalidRequestURL": 400,
    "InvalidQueryString": 400,
    "TopicNotExist": 404,
    "SubscriptionNotExist": 404,
    "QpsLimitExceeded": 400,
    "InternalError": 500,
    "InternalServerError": 500,
    "RequestTimeout": 408,
    "ServiceUnavailable": 503,
    "MissingReceiptHandle": 400,
    "ReceiptHandleError": 400,
    "MessageNotExist": 404,
}
"""Code → HTTP status, from the HTTP API's error table; where that table names no status, the emulator's choice."""


class Rejection(Exception):  # noqa: N818 - an answer that the client gets, not an error of the emulator
    """The request is answered with an ``<Error>`` of this code.

    Attributes:
        code: one of the HTTP API's, such as ``"InvalidArgument"``.
        text: what the client reads in ``<Message>``.
        status: the HTTP status, by the code unless given.
        headers: further response headers, such as ``Retry-After``.
    """

    def __init__(
        self, code: str, text: str, status: int | None = None, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text
        self.status = status or STATUS.get(code, 400)
        self.headers = headers
