"""Answers of every kind, damaged at random in status, headers, framing and body: nothing raises, nothing is made up."""

import random
import re
import socket
from hashlib import md5

import pytest
from requests.structures import CaseInsensitiveDict

from outbox.outcomes import Checked, Ended, NotFound, Paused, Refused, Retry, Sent, Unknown
from outbox.rocketmq.answers import check_outcome_of, end_outcome_of, outcome_of
from outbox.rocketmq.connection import TimedPool, _TimedConnection, _TimedSocket
from outbox.rocketmq.transport import HttpAnswer, HttpRequest, NoAnswer, RequestsTransport

BODY = '{"id":7,"name":"Zoë"}'
HANDLE = "0A03F29C00012A9F0000000000000001-handle"
MESSAGE_ID = "0A03F29C00012A9F0000000000000001"
MD5 = md5(BODY.encode()).hexdigest().upper()
NOW = 1772690828.0
#: One answer in so many goes over a socket, where its head can be damaged, too; which takes five times as long.
WIRE_STEP = 5

_ERROR = "<Code>{}</Code><Message>The broker's words.</Message><RequestId>69A91D0C3743313535730002</RequestId>"
_HALF = (
    f"<Message><MessageId>{MESSAGE_ID}</MessageId><MessageBodyMD5>{MD5}</MessageBodyMD5><MessageBody>half</MessageBody>"
    f"<ReceiptHandle>{HANDLE}</ReceiptHandle><PublishTime>1772690828000</PublishTime><FirstConsumeTime>1</FirstConsumeTime>"
    "<NextConsumeTime>1772690838000</NextConsumeTime><ConsumedTimes>1</ConsumedTimes><MessageTag>TagA</MessageTag>"
    "<Properties>KEYS:k|__TransCheckT:10|</Properties></Message>"
)
_FAILED = (
    f"<Error><ErrorCode>ReceiptHandleError</ErrorCode><ErrorMessage>bad</ErrorMessage><ReceiptHandle>{HANDLE}"
    "</ReceiptHandle></Error>"
)


def _xml(root: str, inner: str) -> bytes:
    return f'<?xml version="1.0" encoding="utf-8"?>\n<{root} xmlns="http://mq.aliyuncs.com/doc/v1">{inner}</{root}>'.encode()


PUBLISHED = f"<MessageId>{MESSAGE_ID}</MessageId><MessageBodyMD5>{MD5}</MessageBodyMD5>"
#: By operation, the answers that there are before they are damaged.
ANSWERS = {
    "publish": [
        (201, _xml("Message", PUBLISHED)),
        (201, _xml("Message", f"{PUBLISHED}<ReceiptHandle>{HANDLE}</ReceiptHandle>")),
        (400, _xml("Error", _ERROR.format("QpsLimitExceeded"))),
        (400, _xml("Error", _ERROR.format("InvalidArgument"))),
        (403, _xml("Error", _ERROR.format("AccessDenied"))),
        (408, _xml("Error", _ERROR.format("TimeExpired"))),
        (500, _xml("Error", _ERROR.format("InternalError"))),
    ],
    "end": [
        (204, b""),
        (404, _xml("Errors", _FAILED)),
        (404, _xml("Errors", _FAILED * 2)),
        (404, _xml("Error", _ERROR.format("MessageNotExist"))),
        (400, _xml("Error", _ERROR.format("ReceiptHandleError"))),
    ],
    "check": [
        (200, _xml("Messages", _HALF)),
        (200, _xml("Messages", _HALF * 3)),
        (404, _xml("Error", _ERROR.format("MessageNotExist"))),
        (403, _xml("Error", _ERROR.format("AccessDenied"))),
    ],
}
HEADERS = {
    "Date": "Thu, 05 Mar 2026 06:07:08 GMT",
    "Content-Type": "text/xml;charset=utf-8",
    "x-mq-request-id": "69A91D0C3743313535730001",
    "Retry-After": "7",
}
_TEXTS = [b"<!DOCTYPE a>", b"&x;", b"<a>", b"</a>", b"\0", b"]]>", b"<!--", b"&#1;", b"9" * 400, b"-", b"\xd9\xa5"]
_HEADS = [
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b":",
    b" ",
    b"\0",
    b"\xff",
    b"9" * 30,
    b"-1",
    b"chunked",
    b"Transfer-Encoding: chunked\r\n",
]
_STATUSES = [0, 99, 100, 200, 201, 202, 204, 206, 302, 304, 400, 401, 404, 408, 429, 499, 500, 503, 600, 999]
_METHODS = {"publish": "POST", "end": "DELETE", "check": "GET"}


def damaged(data: bytes, chance: random.Random, pieces: list[bytes]) -> bytes:
    """With one to four bytes changed, lost, doubled, cut off, put in or moved."""
    text = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(text) + 1)
        match chance.randrange(6):
            case 0:
                text[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del text[at : at + chance.randint(1, 40)]
            case 2:
                text[at:at] = text[at : at + chance.randint(1, 40)]
            case 3:
                del text[at:]
            case 4 if text:
                text[at % len(text)] ^= 1 << chance.randrange(8)
            case _:
                text[at:at] = chance.choice(pieces)
    return bytes(text)


def by_value(status: int, body: bytes, chance: random.Random) -> HttpAnswer:
    """The answer with its body damaged, and now and then its status and a header."""
    headers = CaseInsensitiveDict(HEADERS)
    if chance.random() < 0.2:
        status = chance.choice(_STATUSES)
    if chance.random() < 0.2:
        name = chance.choice(list(HEADERS))
        headers[name] = damaged(HEADERS[name].encode(), chance, _HEADS + _TEXTS).decode("latin-1")
    return HttpAnswer(status, headers, damaged(body, chance, _TEXTS))


class Wire:
    """The transport that is shipped, on connections that end in this process: what is put in is the next answer."""

    def __init__(self) -> None:
        wire = self

        class Connection(_TimedConnection):
            def _new_conn(self) -> socket.socket:
                ours, wire.far_end = socket.socketpair()
                wire.far_end.sendall(wire.answer)
                wire.far_end.shutdown(socket.SHUT_WR)
                return _TimedSocket(fileno=ours.detach())

        class Pool(TimedPool):
            ConnectionCls = Connection

        self.answer = b""
        self.far_end: socket.socket
        self._transport = RequestsTransport("http://127.0.0.1:1", pool_size=1)
        # A connection that was idle for any time at all is not used again.
        self._transport._adapter._pool = Pool("127.0.0.1", 1, maxsize=1, idle_s=0.0)

    def ask(self, method: str, status: int, body: bytes, chance: random.Random) -> HttpAnswer | NoAnswer:
        """What the transport makes of the answer, damaged anywhere, but mostly in its head."""
        length = f"Content-Length: {len(body)}\r\n" if status != 204 else ""
        headers = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        head = f"HTTP/1.1 {status} Reason\r\n{headers}{length}\r\n".encode()
        self.answer = damaged(head, chance, _HEADS) + body
        if chance.random() < 0.2:
            self.answer = damaged(head + body, chance, _HEADS + _TEXTS)
        answer = self._transport.send(HttpRequest(method, "/topics/orders/messages", {}, b"body", 5.0))
        self.far_end.close()
        return answer


_DECIDE = {
    "publish": lambda answer: outcome_of(answer, BODY, now=NOW, hidden=(HANDLE,)),
    "end": lambda answer: end_outcome_of(answer, now=NOW, hidden=(HANDLE,)),
    "check": lambda answer: check_outcome_of(answer, now=NOW, hidden=(HANDLE,)),
}
_KINDS = {
    "publish": {Sent, Refused, Unknown, Paused, Retry},
    "end": {Ended, NotFound, Unknown, Paused},
    "check": {Checked, Unknown, Paused},
}


def is_proven(outcome: object, answer: HttpAnswer | NoAnswer) -> bool:
    """Whether the answer holds what the outcome claims."""
    match outcome:
        case Sent(message_id=message_id):
            proof = MD5.encode() in answer.body.upper() and message_id.encode() in answer.body
            return answer.status == 201 and proof and re.fullmatch("[0-9A-Fa-f]{32}", message_id) is not None
        case Ended():
            return answer.status == 204
        case Checked(halves=halves):
            texts = answer.body.decode("utf-8")
            found = all(re.fullmatch("[0-9A-Fa-f]{32}", one.message_id) and one.receipt_handle for one in halves)
            return found and (answer.status == 200 or "MessageNotExist" in texts)
        case _:
            fault = outcome.fault
            tidy = (
                fault.text.isprintable()
                and len(fault.text) <= 512
                and re.fullmatch("[A-Za-z][A-Za-z0-9._-]{0,63}", fault.code)
            )
            return bool(tidy) and HANDLE not in repr(outcome)


def mutate(seed: int, many: int) -> tuple[list[object], set[tuple[str, type]]]:
    """Damage so many answers; those that prove nothing for what was made of them, and the outcomes there were."""
    chance = random.Random(seed)
    wire = Wire()
    unproven, kinds = [], set()
    for number in range(many):
        operation = chance.choice(list(ANSWERS))
        status, body = chance.choice(ANSWERS[operation])
        if number % WIRE_STEP:
            answer: HttpAnswer | NoAnswer = by_value(status, body, chance)
        else:
            answer = wire.ask(_METHODS[operation], status, body, chance)
        outcome = _DECIDE[operation](answer)
        kinds.add((operation, type(outcome)))
        if not is_proven(outcome, answer):
            unproven.append((operation, answer, outcome))
    return unproven, kinds


@pytest.mark.parametrize("seed", range(4))
def test_mutated_answers_prove_nothing(seed):
    """Of 20,000 damaged answers none raises, and none makes a row sent, ended or offered without what proves it."""
    unproven, kinds = mutate(seed, 5_000)

    assert [] == unproven
    assert {(operation, kind) for operation, kinds in _KINDS.items() for kind in kinds} == kinds
