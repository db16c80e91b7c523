"""The XML of the HTTP API, from the server's side. No I/O.

What comes in is parsed by expat, as UTF-8 whatever it declares, without any DTD and no deeper than the API needs. The
namespace may be spelled with the last slash, without it, or be absent: the official SDKs do all three. What goes
out has the namespace without the slash, which every official SDK can read, and text nodes only, never CDATA.
"""

from collections.abc import Iterable
from xml.parsers import expat

from outbox.emulator.rejection import Rejection
from outbox.emulator.stored import Delivery, Failure, StoredMessage

__all__ = ["accepted", "batch", "error", "failures", "read_message", "read_receipt_handles"]

_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>'
_NAMESPACE = "http://mq.aliyuncs.com/doc/v1"
_KNOWN_NAMESPACES = ("", _NAMESPACE, f"{_NAMESPACE}/")
_MESSAGE_FIELDS = ("MessageBody", "MessageTag", "Properties")
_CHILD_DEPTH = 2
_FAILURE_TEXT = {
    "ReceiptHandleError": "The receipt handle you provided is not valid.",
    "MessageNotExist": "The receipt handle you provided has expired.",
}


class _Children:
    """Collects the text of the root's children, and refuses everything else."""

    def __init__(self, root: str, allowed: tuple[str, ...]) -> None:
        self.root = root
        self.allowed = allowed
        self.found: list[tuple[str, str]] = []
        self._depth = 0
        self._text: list[str] = []

    def parse(self, document: bytes) -> list[tuple[str, str]]:
        parser = expat.ParserCreate("utf-8", " ")
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._refuse_doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text.append
        # Expat takes UTF-16 for what it is, whatever encoding it is told to expect; every such document has a NUL.
        if b"\0" in document:
            raise _malformed("it is not in UTF-8")
        try:
            parser.Parse(document, True)
        except expat.ExpatError as error:
            raise _malformed(str(error)) from None
        return self.found

    def _refuse_doctype(self, *_: object) -> None:
        raise _malformed("a DTD is not allowed")

    def _start(self, name: str, _attributes: dict[str, str]) -> None:
        namespace, _, local = name.rpartition(" ")
        self._depth += 1
        fits = local == self.root if self._depth == 1 else self._depth == _CHILD_DEPTH and local in self.allowed
        if not fits or namespace not in _KNOWN_NAMESPACES:
            raise Rejection("InvalidArgument", f"The element <{local[:64]}> is not expected here.")
        self._skip_blanks()

    def _end(self, name: str) -> None:
        if self._depth == _CHILD_DEPTH:
            self.found.append((name.rpartition(" ")[2], "".join(self._text)))
            self._text.clear()
        else:
            self._skip_blanks()
        self._depth -= 1

    def _skip_blanks(self) -> None:
        if self._text and "".join(self._text).strip():
            raise Rejection("InvalidArgument", f"Text is not expected inside <{self.root}>.")
        self._text.clear()


def _malformed(why: str) -> Rejection:
    return Rejection("MalformedXML", f"The XML you provided is invalid: {why}.")


def read_message(document: bytes) -> dict[str, str]:
    """Read a publish body.

    Returns:
        The text of ``MessageBody``, ``MessageTag`` and ``Properties``, as far as they are there.

    Raises:
        Rejection: ``MalformedXML`` when it is not well-formed UTF-8 XML without a DTD, ``InvalidArgument`` when it is
            not a ``<Message>`` of these elements, each at most once.
    """
    children = _Children("Message", _MESSAGE_FIELDS).parse(document)
    fields = dict(children)
    if len(fields) != len(children):
        raise Rejection("InvalidArgument", "An element of <Message> is given twice.")
    return fields


def read_receipt_handles(document: bytes) -> list[str]:
    """Read the body of an ack, commit or rollback.

    Raises:
        Rejection: ``MissingReceiptHandle`` for an empty document or none inside, ``InvalidArgument`` for more than 16;
            otherwise as `read_message`.
    """
    if not document:
        raise Rejection("MissingReceiptHandle", "The receipt handle is missing in the request.")
    handles = [text for _, text in _Children("ReceiptHandles", ("ReceiptHandle",)).parse(document)]
    if not handles:
        raise Rejection("MissingReceiptHandle", "The receipt handle is missing in the request.")
    if len(handles) > 16:  # noqa: PLR2004 - the API's batch limit
        raise Rejection("InvalidArgument", f"{len(handles)} receipt handles were given; a request takes 1 to 16.")
    return handles


def _escape(text: str) -> str:
    # A raw carriage return would come out of any XML parser as a line feed.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")


def _document(root: str, inner: str) -> bytes:
    return f'{_DECLARATION}<{root} xmlns="{_NAMESPACE}">{inner}</{root}>'.encode()


def accepted(message: StoredMessage, handle: str | None) -> bytes:
    """Write the answer to a publish; only half messages have a receipt handle."""
    inner = f"<MessageId>{message.message_id}</MessageId><MessageBodyMD5>{message.body_md5}</MessageBodyMD5>"
    if handle is not None:
        inner += f"<ReceiptHandle>{handle}</ReceiptHandle>"
    return _document("Message", inner)


def _millis(epoch: float) -> int:
    return round(epoch * 1000)


def _delivered(delivery: Delivery) -> str:
    message = delivery.message
    # The broker uses the request id as the key of a message that has none ("Operation for sending messages").
    properties = (
        message.properties if "KEYS" in message.properties else {"KEYS": message.request_id, **message.properties}
    )
    pairs = "".join(f"{key}:{value}|" for key, value in properties.items())
    tag = "" if message.tag is None else f"<MessageTag>{_escape(message.tag)}</MessageTag>"
    return (
        f"<Message><MessageId>{message.message_id}</MessageId><MessageBodyMD5>{message.body_md5}</MessageBodyMD5>"
        f"<MessageBody>{_escape(message.body)}</MessageBody><ReceiptHandle>{delivery.handle}</ReceiptHandle>"
        f"<PublishTime>{_millis(message.at)}</PublishTime>"
        f"<FirstConsumeTime>{_millis(delivery.first_at)}</FirstConsumeTime>"
        f"<NextConsumeTime>{_millis(delivery.next_at)}</NextConsumeTime>"
        f"<ConsumedTimes>{delivery.times}</ConsumedTimes>{tag}<Properties>{_escape(pairs)}</Properties></Message>"
    )


def batch(deliveries: Iterable[Delivery]) -> bytes:
    """Write the messages handed to a consumer, or the half messages handed to a checker."""
    return _document("Messages", "".join(map(_delivered, deliveries)))


def failures(failed: Iterable[Failure]) -> bytes:
    """Write the answer to an ack, commit or rollback of which some handles had no effect."""
    inner = "".join(
        f"<Error><ErrorCode>{failure.code}</ErrorCode><ErrorMessage>{_FAILURE_TEXT[failure.code]}</ErrorMessage>"
        f"<ReceiptHandle>{_escape(failure.handle)}</ReceiptHandle></Error>"
        for failure in failed
    )
    return _document("Errors", inner)


def error(code: str, text: str, request_id: str, host_id: str) -> bytes:
    """Write an ``<Error>`` with the four children that the official SDKs need."""
    return _document(
        "Error",
        f"<Code>{_escape(code)}</Code><Message>{_escape(text)}</Message>"
        f"<RequestId>{request_id}</RequestId><HostId>{_escape(host_id)}</HostId>",
    )
