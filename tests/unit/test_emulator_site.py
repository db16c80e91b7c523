import logging
from email.utils import formatdate

from outbox.emulator.exchange import Request
from outbox.emulator.site import Site
from outbox.rocketmq.signature import authorization, signature


def test_defect_is_answered_and_logged(caplog):
    """Should the emulator itself fail, its client gets a 500 that says so, and the log has the reason."""
    site = Site({"FAKEAKID": "FAKESECRET"})
    site.broker.publish = None
    date, target = formatdate(usegmt=True), "/topics/orders/messages"
    headers = {"x-mq-version": "2015-06-06", "date": date}
    headers["authorization"] = authorization("FAKEAKID", signature("FAKESECRET", "POST", target, date))
    body = b"<Message><MessageBody>a</MessageBody></Message>"

    with caplog.at_level(logging.ERROR, "outbox.emulator"):
        answer = site.answer(Request("POST", target, headers, body))

    assert 500 == answer.status
    assert b"<Code>InternalError</Code>" in answer.body
    assert [("outbox.emulator.failed", TypeError)] == [(one.message, one.exc_info[0]) for one in caplog.records]
