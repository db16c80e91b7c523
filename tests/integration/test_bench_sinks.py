"""The sinks of `make bench`, as this machine has them: nginx, or our own."""

import pytest
import requests

from benchmarks.sinks import BODY, DIGEST, sink
from outbox.rocketmq.wire import publish_xml, read_published


@pytest.mark.parametrize("delay_ms", [0, 5])
def test_sink_answers_as_the_broker_does(delay_ms):
    """Our relay takes its answer for a publish, or a benchmark would measure retries."""
    with sink(delay_ms) as url:
        answer = requests.post(f"{url}/topics/orders/messages", data=publish_xml(BODY, None, ""), timeout=5)

    assert 201 == answer.status_code
    assert DIGEST == read_published(answer.content).body_md5
