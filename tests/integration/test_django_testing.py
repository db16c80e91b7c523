"""What a project's own tests use: a relay inside a TestCase's transaction, or outside."""

import unittest

import pytest

from outbox import EnqueueError, Message
from tests.django_projects import django_databases, set_up

set_up()

from django.db import connection, transaction  # noqa: E402 - Django must be set up first
from django.test import TestCase, override_settings  # noqa: E402 - likewise

from outbox.django import enqueue  # noqa: E402 - likewise
from outbox.django.models import OutboxAttempt, OutboxMessage  # noqa: E402 - likewise
from outbox.django.testing import relaying  # noqa: E402 - likewise


@pytest.fixture
def django(migrated_url):
    with django_databases(default=migrated_url):
        yield


class ShopTest(TestCase):
    """As a project has it; run below, on each database."""

    __test__ = False

    def test_relays_inside_the_transaction(self):
        """What the code under test enqueues is published and marked, though nothing is ever committed."""
        with relaying() as outbox:
            with transaction.atomic():
                enqueue(Message("orders", {"id": 7}, tag="created", keys="order-7"), Message("invoices", "seven"))
            first = outbox.drain()
            with transaction.atomic():
                enqueue(Message("orders", "later", ordering_key="seven"))
            second = outbox.drain()

        assert {("orders", '{"id":7}'), ("invoices", "seven")} == {(m["topic"], m["body"]) for m in first}
        assert ["later"] == [message["body"] for message in second]
        assert {"sent"} == set(OutboxMessage.objects.values_list("state", flat=True))
        assert OutboxMessage.objects.get(tag="created").lease_until is None

    def test_a_broker_that_refuses(self):
        """Faults are tried out as well: the row fails, with its attempt written down."""
        with relaying() as outbox:
            with transaction.atomic():
                enqueue(Message("orders", "refused"))
            outbox.broker.fault("throttle", count=1)
            delivered = outbox.drain()

        assert ["refused"] == [message["body"] for message in delivered]
        assert 1 == OutboxAttempt.objects.count()

    def test_transaction_of_the_test_case_is_none_of_the_code(self):
        """What production would refuse is refused here: the code under test has opened no transaction."""
        with pytest.raises(EnqueueError):
            enqueue(Message("orders", "outside"))
        with transaction.atomic(), transaction.atomic():
            enqueue(Message("orders", "inside"))

        assert ["inside"] == list(OutboxMessage.objects.values_list("body", flat=True))

    def test_the_transaction_is_still_its_own(self):
        """A savepoint around all of it takes all of it back."""
        with relaying() as outbox:
            block = transaction.atomic()
            block.__enter__()
            enqueue(Message("orders", "taken back"))
            outbox.drain()
            transaction.set_rollback(True)
            block.__exit__(None, None, None)

        assert 0 == OutboxMessage.objects.count()


def test_relaying_in_a_test_case(django):
    """Each test of a TestCase passes, and leaves nothing behind."""
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(ShopTest)
    result = suite.run(unittest.TestResult())

    assert [] == [text for _, text in (*result.errors, *result.failures)]
    assert 4 == result.testsRun
    assert 0 == OutboxMessage.objects.count()


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_relaying_outside_a_transaction(django):
    """Where transactions are real, the relay connects by itself, and sees what is committed."""
    with relaying() as outbox:
        with transaction.atomic():
            enqueue(Message("orders", "committed"))
        delivered = outbox.drain()

    assert ["committed"] == [message["body"] for message in delivered]
    assert not connection.in_atomic_block


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_relaying_replaces_what_would_reach_a_broker(django):
    """Whatever destinations the settings describe, the emulator stands in for each of them."""
    elsewhere = {"endpoint": "https://1.mqrest.cn.aliyuncs.com", "credentials": "shop.keys:provide"}
    settings = {"ENDPOINT": elsewhere["endpoint"], "ACCESS_KEY_SECRET_FILE": "/nowhere", "MAX_ATTEMPTS": 3}
    with override_settings(OUTBOX={**settings, "DESTINATIONS": {"billing": elsewhere}}), relaying() as outbox:
        with transaction.atomic():
            enqueue(Message("orders", "one"), Message("invoices", "two", destination="billing"))
        delivered = outbox.drain()

    assert {"one", "two"} == {message["body"] for message in delivered}
