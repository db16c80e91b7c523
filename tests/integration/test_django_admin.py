"""The operators' pages in Django's admin: what they show, what they do, and what they refuse."""

import re
import unittest

import pytest
from sqlalchemy import make_url

from outbox import Message
from outbox.admin import deeds
from outbox.store import matching, operate
from tests.conftest import _engine
from tests.django_projects import ADMIN, Operator, admin_project, migrated_project, plain, set_up
from tests.flask_apps import hidden
from tests.rows import audits, lease_row, read_row, statements, states, write_row, write_rows

set_up()

from django.contrib.admin import AdminSite  # noqa: E402 - Django must be set up first
from django.contrib.admin.models import LogEntry  # noqa: E402 - likewise
from django.db import connection, transaction  # noqa: E402 - likewise
from django.test import TestCase, override_settings  # noqa: E402 - likewise
from django.test.utils import CaptureQueriesContext  # noqa: E402 - likewise
from django.urls import path  # noqa: E402 - likewise

from outbox.django import connecting, enqueue  # noqa: E402 - likewise
from outbox.django.admin import OutboxMessageAdmin  # noqa: E402 - likewise
from outbox.django.models import OutboxMessage  # noqa: E402 - likewise

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e{{ 7*7 }}{% now %}'\"&"
LOOKS = ("", "?state=failed", "overview/", "failed/", "pauses/", "audit/", "1/change/")
REASON = {"reason": "endpoint repaired"}


@pytest.fixture(scope="session")
def project_database(tmp_path_factory):
    return migrated_project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def project(project_database, tmp_path):
    with admin_project(tmp_path, project_database) as url:
        yield url


@pytest.fixture
def engine(project):
    engine = _engine(make_url(project))
    yield engine
    engine.dispose()


@pytest.fixture
def ann(project):
    return Operator("ann", superuser=True)


def fail(engine, **over):
    told = {"last_error_code": "Timeout", "last_error": "no answer", "attempts": 10}
    return write_row(engine, state="failed", **told | over)


class PagesTest(TestCase):
    """As a project has it; run below."""

    __test__ = False

    def test_pages_see_what_is_not_committed(self):
        with transaction.atomic():
            enqueue(Message("orders", "uncommitted", keys="order-77"))

        assert "order-77" in Operator("tess", superuser=True).text()


def test_pages_in_a_test_case(project):
    """They work inside its transaction, on the connection that it is open on."""
    result = unittest.defaultTestLoader.loadTestsFromTestCase(PagesTest).run(unittest.TestResult())

    assert [] == [text for _, text in (*result.errors, *result.failures)]
    assert 1 == result.testsRun


def test_pages_ask_the_model_admin_who_may_see_them(project, ann):
    """A project may narrow that down by a class of its own."""

    class NotForBob(OutboxMessageAdmin):
        def has_view_permission(self, request, obj=None):
            return super().has_view_permission(request, obj) and request.user.get_username() != "bob"

    site = AdminSite(name="ops")
    site.register(OutboxMessage, NotForBob)
    with override_settings(ROOT_URLCONF=type("urls", (), {"urlpatterns": [path("ops/", site.urls)]})):
        found = [one.client.get("/ops/outbox/outboxmessage/").status_code for one in (ann, Operator("bob", ["view"]))]

    assert [200, 403] == found


def test_pages_keep_no_connection_longer_than_django(ann):
    """Without CONN_MAX_AGE Django closes its own after each request."""
    ann.get()

    assert [0] == [database.engine.pool.checkedin() for database in connecting._made.values()]


# --- looking ------------------------------------------------------------------------------------------------------


def test_admin_lists_the_messages(engine, ann):
    """The model is in the admin's index, and its list is the outbox's page in the admin's frame, with a summary."""
    row_id = fail(engine, keys="order-7")
    write_rows(engine, 2)
    index = ann.client.get("/admin/")
    page = ann.get()

    assert f'href="{ADMIN}"' in index.text
    assert "Django administration" in page.text
    assert f'href="{ADMIN}{row_id}/change/"' in page.text
    assert "2 pending · 1 failed · oldest pending" in plain(page)
    assert "no-store" in page.headers["Cache-Control"]
    assert "no pauses" in plain(page)


@pytest.mark.parametrize("path", LOOKS)
def test_admin_pages_ask_little(engine, project, path):
    """No page sends more than twenty statements, those for the session, the user and the permissions included."""
    from outbox.django import connecting

    for number in range(30):
        fail(engine, topic=f"topic-{number}")
    bob = Operator("bob", ["view", "replay", "discard", "pause", "view_body"])
    bob.get(path)
    (database,) = connecting._made.values()
    with CaptureQueriesContext(connection) as djangos, statements(database.engine) as ours:
        answer = bob.get(path)

    assert 200 == answer.status_code
    assert 0 < len(ours)
    assert len(ours) + len(djangos) <= 20


def test_admin_filters_and_searches(engine, ann):
    """By state, topic, error code, destination and time; by outbox id, MessageId and key."""
    wanted = fail(engine, topic="invoices", keys="order-7 x", message_id="C0A8", destination="billing")
    fail(engine)
    outbox_id = read_row(engine, wanted)["outbox_id"]
    filters = (
        {"topic": "invoices"},
        {"destination": "billing"},
        {"key": "order-7"},
        {"message_id": "C0A8"},
        {"outbox_id": outbox_id},
        {"state": "failed", "error_code": "Timeout", "topic": "invoices", "created_from": "2020-01-01"},
    )
    found = [re.findall(r">#(\d+)</a>", ann.get(**one).text) for one in filters]

    assert [[str(wanted)]] * len(filters) == found
    assert 400 == ann.get(state="gone").status_code


def test_admin_shows_the_life_of_a_message(engine, ann):
    """The page of a message is found by its row id and by its outbox id; its body is masked."""
    row_id = fail(engine, body="the secret body")
    outbox_id = read_row(engine, row_id)["outbox_id"]
    pages = [ann.get(f"{reference}/change/") for reference in (row_id, outbox_id)]

    assert [200, 200] == [page.status_code for page in pages]
    assert all("What happened to it" in page.text and "the secret body" not in page.text for page in pages)
    assert "Timeout no answer" in plain(pages[0])


def test_admin_shows_a_body_to_those_who_ask(engine, ann):
    """A body is shown for a POST, and that it was is in the audit and in Django's log."""
    row_id = fail(engine, body="the secret body")
    answer = ann.post(f"{row_id}/body/")

    assert "the secret body" in answer.text
    assert [("ann", "view_body")] == [(one["by"], one["action"]) for one in audits(engine)]
    assert [(str(row_id), "looked at the body")] == list(LogEntry.objects.values_list("object_id", "change_message"))


@pytest.mark.parametrize("reference", ["999", "nothing", "99999999999999999999"])
def test_admin_of_a_message_that_is_not_there(ann, reference):
    """An id that no message has is not found, with a line."""
    answer = ann.get(f"{reference}/change/")

    assert 404 == answer.status_code
    assert "there is no message" in plain(answer)


def test_admin_shows_strangers_texts_inert(engine, ann):
    """Markup, control characters and template code in any column are shown as text."""
    fail(engine, keys=HOSTILE, last_error=HOSTILE, last_error_code="<script>alert", body=HOSTILE)
    pages = [ann.get(path) for path in LOOKS] + [ann.post("1/body/")]

    for page in pages:
        assert 200 == page.status_code
        assert "<script>alert" not in page.text
        assert "\x1b" not in page.text
        assert "\u202e" not in page.text
    assert "{{ 7*7 }}{% now %}" in plain(pages[-1])


def test_admin_on_a_site_of_its_own(engine, ann):
    """Links lead to the site that the page is on, whatever its name and place."""
    fail(engine)
    site = AdminSite(name="ops")
    site.register(OutboxMessage, OutboxMessageAdmin)
    with override_settings(ROOT_URLCONF=type("urls", (), {"urlpatterns": [path("ops/", site.urls)]})):
        pages = [
            ann.client.get(f"/ops/outbox/outboxmessage/{one}") for one in ("?state=failed", "failed/", "1/change/")
        ]

    assert [200, 200, 200] == [page.status_code for page in pages]
    assert all('href="/ops/outbox/outboxmessage/overview/"' in page.text for page in pages)
    assert all('"/admin/' not in page.text for page in pages)


def test_admin_serves_its_style_and_script(ann):
    """Both are ours, without collectstatic; nothing else is served there."""
    answers = [ann.client.get(f"{ADMIN}static/{name}") for name in ("outbox.css", "outbox.js", "settings.py")]

    assert [200, 200, 404] == [answer.status_code for answer in answers]
    assert ["text/css; charset=utf-8", "text/javascript; charset=utf-8"] == [
        answer.headers["Content-Type"] for answer in answers[:2]
    ]
    assert f'href="{ADMIN}static/outbox.css?v=' in ann.get().text


# --- acting -------------------------------------------------------------------------------------------------------


def test_admin_replays_selected_rows(engine, ann):
    """Selected rows are confirmed, replayed with a reason, told one by one, and found in both logs."""
    first, second, other = fail(engine), fail(engine), fail(engine)
    selected = [f"{row_id}.failed.0" for row_id in (first, second)]
    question = ann.post("confirm/", do="replay selected", selected=selected)
    unchanged = states(engine)
    answer = ann.act("replay selected", selected=selected)

    assert "Replay 2 messages?" in plain(question)
    assert {"failed"} == set(unchanged.values())
    assert "2 replayed" in plain(answer)
    assert {first: "pending", second: "pending", other: "failed"} == states(engine)
    assert "ann replay 2 orders endpoint repaired" in ann.text("audit/")
    assert {(str(row_id), "replay: endpoint repaired") for row_id in (first, second)} == set(
        LogEntry.objects.values_list("object_id", "change_message")
    )


@pytest.mark.parametrize(("verb", "state"), [("replay", "pending"), ("discard", "discarded")])
def test_admin_takes_actions_as_django_sends_them(engine, ann, verb, state):
    """`action` and `_selected_action` lead to the confirmation, whose form has a reason; with it the act is done."""
    row_id = fail(engine)
    question = ann.post("", action=verb, _selected_action=[row_id])
    form = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', question.text))
    unchanged = states(engine)
    answer = ann.post("", action=verb, _selected_action=[row_id], reason="endpoint repaired")

    assert 'name="reason"' in question.text
    assert f"{row_id}.failed.0" == form["selected"]
    assert {row_id: "failed"} == unchanged
    assert f"1 {verb}ed" in plain(answer)
    assert {row_id: state} == states(engine)


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ({}, "no act was chosen"),
        ({"action": "replay"}, "no row is selected"),
        ({"action": "delete_selected", "_selected_action": "1"}, "do: is no act of these pages"),
        ({"action": "replay", "_selected_action": "1 OR 1=1"}, "holds something that is no row's id"),
        ({"action": "replay", "_selected_action": "9" * 30}, "holds something that is no row's id"),
        ({"action": "replay", "_selected_action": "999"}, "no row is selected"),
        ({"action": "replay", "_selected_action": list(range(501))}, "select at most 500"),
    ],
    ids=["none", "no rows", "delete", "forged", "huge", "gone", "many"],
)
def test_admin_refuses_forged_actions(engine, ann, form, says):
    """An action that no list has sent is refused with a line, and nothing is done."""
    row_id = fail(engine)

    answer = ann.post("", **form)

    assert 400 == answer.status_code
    assert says in plain(answer)
    assert ({row_id: "failed"}, []) == (states(engine), audits(engine))


def test_admin_refuses_a_forged_filter(engine, ann):
    """A filter that cannot be meant is refused with a line."""
    row_id = fail(engine)
    answers = [
        ann.act("replay matching", state="gone"),
        ann.act("replay matching", state="failed", topic="' OR 1=1"),
        ann.act("replay matching"),
    ]

    assert [400, 400, 400] == [answer.status_code for answer in answers]
    assert "state: is no state" in plain(answers[0])
    assert {row_id: "failed"} == states(engine)


def test_admin_refuses_an_act_without_a_reason(engine, ann):
    """The confirmation is shown again, with what is missing; Django's log has nothing either."""
    row_id = fail(engine)
    answer = ann.act("discard selected", selected=f"{row_id}.failed.0", reason=" ")

    assert 400 == answer.status_code
    assert "reason: missing; say why" in plain(answer)
    assert ({row_id: "failed"}, 0) == (states(engine), LogEntry.objects.count())


def test_admin_acts_on_all_that_match_in_chunks(engine, ann, monkeypatch):
    """What takes long is done bit by bit; each part has its entry in Django's log."""
    for module in (operate, matching):
        monkeypatch.setattr(module, "CHUNK", 2)
    monkeypatch.setattr(deeds, "_FOR_S", 0.0)
    rows = [fail(engine) for _ in range(5)]
    question = ann.post("confirm/", do="discard matching", state="failed")
    answer = ann.act(**hidden(question))
    while "data-ob-go-on" in answer.text:
        answer = ann.post("act/", **hidden(answer))

    assert "Discard 5 messages?" in plain(question)
    assert "5 discarded" in plain(answer)
    assert dict.fromkeys(rows, "discarded") == states(engine)
    assert ["1 messages", "2 messages", "2 messages"] == sorted(LogEntry.objects.values_list("object_repr", flat=True))


def test_admin_acts_on_no_more_than_was_confirmed(engine, ann):
    """Rows that fail between question and answer, even with lower ids, are left alone; of none nothing is asked."""
    (older,) = write_rows(engine, 1)
    nothing = ann.post("confirm/", do="discard matching", state="failed")
    newest = fail(engine)
    question = ann.post("confirm/", do="discard matching", state="failed")
    with engine.begin() as sql:
        sql.exec_driver_sql(f"UPDATE outbox_messages SET state = 'failed' WHERE id = {older}")

    ann.act(**hidden(question))

    assert (400, 200) == (nothing.status_code, question.status_code)
    assert {older: "failed", newest: "discarded"} == states(engine)


@pytest.mark.parametrize("forged", ["9" * 5000, "%00", "%D9%A1"])
def test_admin_does_not_know_forged_references(engine, ann, forged):
    """A reference that none has is that of no message, in whatever digits it is written."""
    assert 1 == write_row(engine)

    assert [404, 404] == [ann.get(f"{forged}/change/").status_code, ann.post(f"{forged}/body/").status_code]


REASONS = {
    "act/": {"do": "discard selected", "selected": "1.failed.0"},
    "act/ on all": {"do": "discard matching", "state": "failed", "confirmed": "1.0"},
    "pauses/": {"topic": " orders\n"},
}


@pytest.mark.parametrize("path", REASONS)
def test_admin_logs_the_reason_of_the_audit(engine, ann, path):
    """Whatever was typed, Django's log gets one line that prints, as the audit does; no database takes a NUL."""
    fail(engine)

    ann.post(path.split()[0], **REASONS[path] | {"reason": " why\x00\x1b\n\u202eso "})

    (audited,) = [one["reason"] for one in audits(engine)]
    (logged,) = LogEntry.objects.all()
    assert "why    so" == audited
    assert logged.change_message.endswith(f": {audited}")
    assert logged.object_repr.isprintable()


@pytest.mark.parametrize(("path", "status"), [("act/", 200), ("pauses/", 302)])
def test_admin_tells_of_what_djangos_log_lacks(engine, ann, caplog, path, status):
    """A deed that is done is told as done, whatever becomes of Django's log; that this lacks it is told and logged."""
    row_id = fail(engine)
    form = {
        "do": "discard selected",
        "selected": f"{row_id}.failed.0",
        "topic": "orders",
        "csrfmiddlewaretoken": ann.token(),
    }
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE django_admin_log RENAME TO away")

    answer = ann.post(path, **form, **REASON)
    shown = answer.text if status == 200 else ann.get("pauses/").text

    assert (status, 1) == (answer.status_code, len(audits(engine)))
    assert "This was done, and is in the outbox’s audit, but not in Django’s log" in shown
    assert ["outbox.django_log_failed"] == [one.getMessage() for one in caplog.records if one.name == "outbox"]


def test_admin_by_force(engine, ann):
    """What may publish twice is done only by force, and both logs say so."""
    row_id = write_row(engine, state="sent", message_id="M")
    unforced = plain(ann.act("replay selected", selected=f"{row_id}.sent.0"))
    forced = plain(ann.act("replay selected", selected=f"{row_id}.sent.0", force="yes"))

    assert "which replay leaves alone unless it is forced" in unforced
    assert "1 replayed" in forced
    assert ["replay --force"] == [one["action"] for one in audits(engine)]
    assert ["replay by force: endpoint repaired"] == list(LogEntry.objects.values_list("change_message", flat=True))


def test_admin_double_click_and_rows_in_flight(engine, ann):
    """The second click finds the row done; what a relay holds is left alone; what is not there is named."""
    once, held = fail(engine), fail(engine)
    lease_row(engine, held)
    selected = [f"{once}.failed.0", f"{held}.failed.0", "999.failed.0"]
    first, second = (plain(ann.act("replay selected", selected=selected)) for _ in range(2))

    assert "1 replayed, 2 left alone" in first
    assert f"#{held} is in flight" in first
    assert "#999 is not there any more" in first
    assert f"#{once} has been replayed meanwhile, and is pending now" in second
    assert 1 == len(audits(engine)) == LogEntry.objects.count()


def test_admin_of_two_operators(engine, ann):
    """Of two operators who have seen the same row one wins; the other is told what came of it."""
    row_id = fail(engine)
    bob = Operator("bob", superuser=True)
    won = plain(ann.act("discard selected", selected=f"{row_id}.failed.0"))
    lost = plain(bob.act("replay selected", selected=f"{row_id}.failed.0"))

    assert "1 discarded" in won
    assert "0 replayed, 1 left alone" in lost
    assert ["ann"] == [one["by"] for one in audits(engine)]


def test_admin_pauses_and_resumes(engine, ann):
    """A topic is paused and resumed with a reason each, found in both logs and in the summary."""
    paused = ann.post("pauses/", topic="orders", reason="maintenance")
    summary = ann.text()
    resumed = ann.post("pauses/resume/", destination="default", topic="orders", reason="done")
    again = ann.post("pauses/resume/", destination="default", topic="orders", reason="done")

    assert [302, 302, 400] == [answer.status_code for answer in (paused, resumed, again)]
    assert f"{ADMIN}pauses/" == paused.headers["Location"]
    assert "1 pause" in summary
    assert ["pause", "resume"] == [one["action"] for one in audits(engine)]
    assert ["pause: maintenance", "resume: done"] == list(
        LogEntry.objects.order_by("pk").values_list("change_message", flat=True)
    )


def test_admin_groups_what_failed(engine, ann):
    """Failed rows are grouped by error, each group with its buttons."""
    for topic in ("orders", "orders", "invoices"):
        fail(engine, topic=topic)
    page = ann.get("failed/")

    assert "2 Timeout in orders no answer" in plain(page)
    assert "1 Timeout in invoices no answer" in plain(page)
    assert 2 == page.text.count('value="replay matching"')


@override_settings(OUTBOX={"LEASE": 3})
def test_admin_of_wrong_settings(ann):
    """Wrong settings are told on the page, in a line."""
    answer = ann.get()

    assert 503 == answer.status_code
    assert "OUTBOX_LEASE: no such setting; did you mean LEASE_S?" in plain(answer)


def test_admin_without_tables(ann, engine):
    """A database without the outbox's tables is told as such."""
    with engine.begin() as sql:
        sql.exec_driver_sql("DROP TABLE outbox_messages")

    assert 503 == ann.get().status_code
    assert "lacks what this version needs" in ann.text()


def test_admin_acts_survive_a_request_that_fails(engine, ann):
    """With ATOMIC_REQUESTS an act is a transaction of its own all the same: its audit cannot be lost, nor block it."""
    from django.db import connections

    connections.settings["default"]["ATOMIC_REQUESTS"] = True
    row_id = fail(engine)
    answer = ann.act("replay selected", selected=f"{row_id}.failed.0")

    assert "1 replayed" in plain(answer)
    assert ({row_id: "pending"}, 1) == (states(engine), LogEntry.objects.count())
