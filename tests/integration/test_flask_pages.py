"""The operators' pages: what they show, what they do, and what they refuse."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask_wtf import CSRFProtect

from outbox.admin import acting, deeds
from outbox.store import matching, operate
from outbox.store.database import Database
from outbox.store.lanes import Lane
from outbox.store.pauses import pause_automatically
from tests.flask_apps import Pages, flask_app, hidden, plain
from tests.rows import (
    ago,
    audits,
    change,
    lease_row,
    new_row,
    outbox_id_at,
    read_row,
    statements,
    states,
    write_all,
    write_row,
    write_rows,
)

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e{{ 7*7 }}'\"&"
LOOKS = ["/", "/messages", "/messages?state=failed", "/messages/1", "/failed", "/pauses", "/audit"]

on_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"])


@pytest.fixture
def app(migrated_url):
    with flask_app(migrated_url, admin_auth=lambda _request: "ann") as app:
        yield app


@pytest.fixture
def pages(app):
    return Pages(app)


def fail(engine, **over):
    return write_row(
        engine, state="failed", **{"last_error_code": "Timeout", "last_error": "no answer", "attempts": 10} | over
    )


# --- looking ------------------------------------------------------------------------------------------------------


def test_overview_tells_how_it_is(engine, pages):
    """Counts, what needs a person, pauses and the last hour are on the first page."""
    fail(engine)
    write_rows(engine, 3)
    pages.post("/pauses", topic="invoices", destination="default", reason="maintenance")
    text = pages.text()

    assert "1 thing needs you 1 row is failed" in text
    assert "default/invoices is paused by ann: maintenance" in text
    assert "3 pending" in text
    assert "Messages a minute" in text
    assert "The schema is at version 0001." in text


@on_sqlite
def test_overview_of_a_healthy_outbox(engine, pages):
    """Where nothing needs anybody, it says so."""
    assert "All is well" in pages.text()


@pytest.mark.parametrize("path", LOOKS)
def test_pages_ask_little(engine, app, pages, path):
    """No page sends twenty statements, however many lanes and half messages there are."""
    rows = [
        new_row(topic=f"topic-{number % 30}", outbox_id=outbox_id_at(ago(number)), created_at=ago(number))
        for number in range(300)
    ]
    write_all(engine, rows)
    for number in range(30):
        fail(engine, topic=f"topic-{number}")
    pages.client.get(f"/outbox{path}")
    with app.app_context():
        own = app.extensions["sqlalchemy"].engine
    with statements(own) as sent:
        answer = pages.client.get(f"/outbox{path}")

    assert 200 == answer.status_code
    assert 0 < len(sent) < 20


def test_messages_by_filter_and_page(engine, pages):
    """A filter narrows the list, and older pages keep it."""
    ours = [fail(engine, topic="invoices", keys=f"order-{number}") for number in range(60)]
    fail(engine)
    first = pages.get("/messages", state="failed", topic="invoices")
    (older,) = re.findall(r'rel="next" href="([^"]+)"', first.text)
    second = pages.client.get(older.replace("&amp;", "&"))
    shown = [int(one) for page in (first, second) for one in re.findall(r">#(\d+)</a>", page.text)]

    assert ours[::-1] == shown
    assert "60 messages match" in plain(first)
    assert 'rel="next"' not in second.text


@on_sqlite
def test_messages_search_goes_on(engine, pages, monkeypatch):
    """Where a search takes too long, the page says how far it came and offers to go on."""
    from outbox.store import search

    write_rows(engine, 30)
    monkeypatch.setattr(search, "_FIRST_WINDOW", 10)
    monkeypatch.setattr(search, "_windows", lambda span, _for_s, windows=search._windows: windows(span, 0))

    answer = pages.get("/messages", key="none")

    assert "down to row #21" in plain(answer)
    assert "Search on" in answer.text


@on_sqlite
@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"state": "gone"}, "State is no state; give one of pending"),
        ({"topic": "a b"}, "Topic got 3 characters"),
        ({"created_from": "yesterday"}, "Created from (UTC) is no instant"),
        ({"key": "\x00"}, "Key got 1 characters"),
        ({"before": "1; DROP TABLE outbox_messages"}, "before: got 29 characters; give a whole number"),
        ({"before": "9" * 40}, "before: got 40 characters"),
    ],
)
def test_forged_filter_is_told(engine, pages, query, says):
    """A filter that cannot be meant is a message beside its field, and no search."""
    answer = pages.get("/messages", **query)

    assert 400 == answer.status_code
    assert says in plain(answer)


@on_sqlite
def test_unknown_message(pages):
    """A row that is not there is a page that says so."""
    for reference in ("77", "no-such-id", "9" * 40, "%00"):
        answer = pages.client.get(f"/outbox/messages/{reference}")

        assert 404 == answer.status_code
        assert "there is no message" in plain(answer)


def test_message_shows_what_happened(engine, pages):
    """One message has its attempts, what was done to it, and no body."""
    row_id = fail(engine, body="the secret body", keys="order-7", properties="KEYS:order-7|region:eu|outbox_id:x|")
    operate.act(Database(engine), "replay", [operate.Target(row_id, "failed", 0)], by="ben", reason="a try")
    answer = pages.get(f"/messages/{row_id}")

    text = plain(answer)
    assert f"Message #{row_id} pending" in text
    assert "Replay by ben a try" in text
    assert "region eu" in text
    assert "the secret body" not in answer.text


@on_sqlite
@pytest.mark.parametrize(
    ("check_s", "says", "says_not"),
    [
        (10, "None of them can be committed any more", "all the same"),
        (None, "2 of its tries may have reached the broker all the same", "None of them"),
    ],
)
def test_failed_message_says_whether_it_may_have_been_published(engine, pages, check_s, says, says_not):
    """A normal message may have been, once for each unknown outcome; a half message certainly was not."""
    text = plain(pages.get(f"/messages/{fail(engine, unknown_outcomes=2, transaction_check_s=check_s)}"))

    assert says in text
    assert says_not not in text


@on_sqlite
def test_message_in_doubt_says_what_to_do(engine, pages):
    """It has no error to show: nothing went wrong that anybody heard of."""
    over = {"transaction_check_s": 10, "message_id": "M", "posted_at": ago(90_000), "heard_at": ago(80_000)}
    text = plain(pages.get(f"/messages/{write_row(engine, state='in_doubt', **over)}"))

    assert "cannot be proven any more" in text
    assert "Last heard of" in text


@on_sqlite
def test_body_is_shown_when_asked_for(engine, pages):
    """A POST shows the body, line by line and harmless, and the audit says who looked."""
    row_id = write_row(engine, body=f"one\n{HOSTILE}", keys="order-7")

    answer = pages.post(f"/messages/{row_id}/body")

    assert "one\n&lt;script&gt;alert(1)&lt;/script&gt;\\x1b[31m\\u202e{{ 7*7 }}" in answer.text
    assert [("view_body", "ann")] == [(one["action"], one["by"]) for one in audits(engine)]
    assert "View body by ann" in plain(answer)


@on_sqlite
def test_hostile_texts_are_inert(engine, app, pages):
    """Whatever strangers wrote is text: no tag, no template, no control character reaches the browser as such."""
    row_id = fail(
        engine,
        **dict.fromkeys(("last_error_code", "last_error", "keys", "tag"), HOSTILE),
        topic="<b>",
        ordering_key=HOSTILE,
        properties=f"outbox_id:x|{HOSTILE}:{HOSTILE}|",
    )
    operate.view_body(Database(engine), row_id, by=HOSTILE, reason=HOSTILE)
    pause_automatically(Database(engine), Lane("default", "<i>"), for_s=60, reason=HOSTILE)
    for path in ("/", "/messages", f"/messages/{row_id}", "/failed", "/pauses", "/audit"):
        text = pages.get(path).text

        assert not re.search(r"<script>|<i>|49'", text)
        assert not {"\x1b", "\u202e"} & set(text)


@on_sqlite
def test_failed_rows_lead_to_their_messages(engine, pages):
    """Groups tell what failed, how often and why, and link the rows."""
    rows = [fail(engine) for _ in range(3)]
    fail(engine, last_error_code=None, last_error=None)
    text = pages.text("/failed")

    assert f"3 Timeout in orders no answer Oldest #{rows[0]} , newest #{rows[-1]}" in text
    assert "1 No error code in orders" in text


@on_sqlite
def test_audit_page_by_page(engine, pages):
    """The audit is read newest first, and further back by its link."""
    for number in range(60):
        pages.post("/pauses", topic=f"topic-{number}", reason=f"reason {number}.")
    first = pages.get("/audit")
    (older,) = re.findall(r'rel="next" href="([^"]+)"', first.text)
    second = pages.client.get(older)

    assert "reason 59." in first.text
    assert "reason 10." in first.text
    assert "reason 9." in second.text
    assert "reason 0." in second.text


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_database_that_is_not_migrated(database_url):
    """What can be foreseen of the database is a line, not a traceback."""
    with flask_app(database_url, admin_auth=lambda _request: "ann") as app:
        answer = Pages(app).get("/")

    assert 503 == answer.status_code
    assert "run outbox migrate" in plain(answer)


# --- acting -------------------------------------------------------------------------------------------------------


def test_replay_of_selected_rows(engine, pages):
    """Selected rows are confirmed, replayed with a reason, told one by one, and found in the audit."""
    first, second, other = fail(engine), fail(engine), fail(engine)
    selected = [f"{row_id}.failed.0" for row_id in (first, second)]
    question = pages.post("/confirm", do="replay selected", selected=selected)
    unchanged = states(engine)
    answer = pages.act("replay selected", selected=selected)

    assert "Replay 2 messages?" in plain(question)
    assert {"failed"} == set(unchanged.values())
    assert "2 replayed" in plain(answer)
    assert {first: "pending", second: "pending", other: "failed"} == states(engine)
    assert "ann replay 2 orders endpoint repaired" in pages.text("/audit")


@on_sqlite
def test_act_without_a_reason(engine, pages):
    """Without a reason nothing is done, and the confirmation is shown again with what is missing."""
    row_id = fail(engine)

    answer = pages.act("discard selected", selected=f"{row_id}.failed.0", reason=" ")

    assert 400 == answer.status_code
    assert "reason: missing; say why" in plain(answer)
    assert "Discard 1 message?" in plain(answer)
    assert {row_id: "failed"} == states(engine)


@on_sqlite
@pytest.mark.parametrize(
    ("form", "says"),
    [
        ({"do": "replay selected"}, "no row is selected"),
        ({"do": "replay selected", "selected": "1"}, "not one that this page has made"),
        ({"do": "purge selected", "selected": "1.failed.0"}, "do: is no act of these pages"),
        ({"do": "replay"}, "do: is no act of these pages"),
        ({}, "do: is no act of these pages"),
        ({"do": "replay matching"}, "choose a state first"),
        ({"do": "replay matching", "state": "gone"}, "state: is no state"),
        ({"do": "replay matching", "state": "pending"}, "cannot replay what is pending: only what is"),
        ({"do": "discard matching", "state": "sent"}, "cannot discard what is sent: only what is failed or in_doubt"),
    ],
)
def test_forged_form_is_told(engine, pages, form, says):
    """A form that no page has made is refused with a line, and nothing is done."""
    row_id = fail(engine)

    answer = pages.post("/confirm", **form)

    assert 400 == answer.status_code
    assert says in plain(answer)
    assert {row_id: "failed"} == states(engine)


@pytest.mark.parametrize("database_kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("forged", ["9" * 5000, "%00", "%D9%A1", "x", "-1", "%F0%9F%98%80" * 36])
def test_forged_reference_is_told(engine, pages, forged):
    """A reference that none has is that of no message, in whatever digits or letters it is written."""
    assert 1 == write_row(engine)

    answers = [pages.get(f"/messages/{forged}"), pages.post(f"/messages/{forged}/body")]

    assert [404, 404] == [answer.status_code for answer in answers]
    assert all("there is no message" in plain(answer) for answer in answers)
    assert [] == audits(engine)


@on_sqlite
@pytest.mark.parametrize("field", [{"created_from": "0001-01-01"}, {"created_until": "9999-12-31T23:59:59"}])
def test_forged_instant_is_told(engine, pages, field):
    """An instant at an end of the calendar is refused with a line."""
    fail(engine)

    answers = [pages.get("/messages", **field), pages.post("/confirm", do="replay matching", state="failed", **field)]

    assert [400, 400] == [answer.status_code for answer in answers]
    assert all("is no instant that messages are of" in plain(answer) for answer in answers)


@on_sqlite
@pytest.mark.parametrize(("field", "forged"), [("after", "x"), ("upto", "-1"), ("done", "1" * 30)])
def test_forged_progress_is_told(engine, pages, field, forged):
    """So is a forged number of the page that goes on by itself."""
    row_id = fail(engine)

    answer = pages.act("replay matching", state="failed", **{"confirmed": "all", "upto": "1", field: forged})

    assert 400 == answer.status_code
    assert f"{field}: got {len(forged)} characters" in plain(answer)
    assert {row_id: "failed"} == states(engine)


@on_sqlite
def test_rows_that_do_not_exist(engine, pages):
    """Ids that no row has are named, and the others are done."""
    row_id = fail(engine)

    answer = pages.act("replay selected", selected=["999.failed.0", f"{row_id}.failed.0"])

    assert "1 replayed, 1 left alone" in plain(answer)
    assert "#999 is not there any more" in plain(answer)


def test_double_click(engine, pages):
    """The second click finds the rows done, and says so."""
    row_id = fail(engine)
    pages.act("replay selected", selected=f"{row_id}.failed.0")

    answer = pages.act("replay selected", selected=f"{row_id}.failed.0")

    assert f"#{row_id} has been replayed meanwhile, and is pending now" in plain(answer)
    assert [1] == [read_row(engine, row_id)["replays"]]
    assert 1 == len(audits(engine))


def test_two_operators_at_once(engine, app):
    """Of two operators one wins each row; the other is told."""
    rows = [fail(engine) for _ in range(10)]
    selected = [f"{row_id}.failed.0" for row_id in rows]
    both = [Pages(app), Pages(app)]
    forms = [{"csrf_token": pages.token(), "selected": selected, "reason": "both"} for pages in both]

    with ThreadPoolExecutor(2) as threads:
        answers = list(
            threads.map(
                lambda pages, form, verb: pages.client.post("/outbox/act", data=form | {"do": f"{verb} selected"}),
                both,
                forms,
                ["replay", "discard"],
            )
        )

    told = [plain(answer) for answer in answers]
    done = [int(re.search(r"(\d+) (?:replay|discard)ed", text)[1]) for text in told]
    assert [10, 10 - done[0]] == [sum(done), done[1]]
    assert {"pending": done[0], "discarded": done[1]} == {
        state: list(states(engine).values()).count(state) for state in ("pending", "discarded")
    }


@on_sqlite
def test_rows_in_flight_are_left_alone(engine, pages):
    """A row that a relay holds is refused with a reason, from a selection and from all that match."""
    row_id = fail(engine)
    lease_row(engine, row_id)

    answers = [
        pages.act("replay selected", selected=f"{row_id}.failed.0"),
        pages.act_on_all("replay", state="failed"),
    ]

    assert [True, True] == [f"#{row_id} is in flight; wait until that has ended" in plain(answer) for answer in answers]
    assert {row_id: "failed"} == states(engine)


def test_replay_of_all_that_match(engine, pages):
    """All rows that match a filter are counted, confirmed and replayed; others stay."""
    ours = [fail(engine, topic="invoices") for _ in range(3)]
    theirs = fail(engine)
    question = plain(pages.post("/confirm", do="replay matching", state="failed", topic="invoices"))
    answer = plain(pages.act_on_all("replay", state="failed", topic="invoices"))

    assert "Replay 3 messages?" in question
    assert "Topic invoices" in question
    assert "3 replayed" in answer
    assert dict.fromkeys(ours, "pending") | {theirs: "failed"} == states(engine)


@on_sqlite
def test_all_that_match_in_chunks(engine, pages, monkeypatch):
    """What takes long is done bit by bit: the page says how far it came, and its form goes on."""
    for module in (operate, matching):
        monkeypatch.setattr(module, "CHUNK", 2)
    monkeypatch.setattr(deeds, "_FOR_S", 0.0)
    rows = [fail(engine) for _ in range(5)]
    answer = pages.act_on_all("discard", state="failed")
    later = fail(engine)
    told = [plain(answer)]
    while "data-ob-go-on" in answer.text:
        answer = pages.post("/act", **hidden(answer))
        told.append(plain(answer))

    assert ["2 discarded so far", "4 discarded so far", "5 discarded"] == [
        re.search(r"\d discarded(?: so far)?", text)[0] for text in told
    ]
    assert dict.fromkeys(rows, "discarded") | {later: "failed"} == states(engine)
    assert ["endpoint repaired"] * 5 == [one["reason"] for one in audits(engine)]


@on_sqlite
def test_no_more_than_was_confirmed(engine, pages):
    """Rows that come into the state between question and answer, even with lower ids, are not what was confirmed."""
    older = write_rows(engine, 3)
    newest = fail(engine)
    asked = pages.post("/confirm", do="discard matching", state="failed")
    for row_id in older:
        change(engine, row_id, state="failed")

    answer = pages.act(**hidden(asked))

    assert "Discard 1 message?" in plain(asked)
    assert "1 discarded" in plain(answer)
    assert dict.fromkeys(older, "failed") | {newest: "discarded"} == states(engine)


@on_sqlite
def test_nothing_to_confirm(engine, pages):
    """Where nothing matches nothing is asked: what comes later would be done unseen."""
    row_id = write_row(engine)

    answer = pages.post("/confirm", do="discard matching", state="failed")

    assert 400 == answer.status_code
    assert "nothing to discard: no message matches" in plain(answer)
    assert {row_id: "pending"} == states(engine)


@on_sqlite
@pytest.mark.parametrize("form", [{}, {"upto": "99"}, {"confirmed": ""}, {"confirmed": "all"}])
def test_unconfirmed_act_is_asked_about(engine, pages, form):
    """A form that does not say what was confirmed is answered by the question."""
    row_id = fail(engine)

    answer = pages.act("discard matching", state="failed", **form)

    assert 400 == answer.status_code
    assert "Discard 1 message?" in plain(answer)
    assert "was not confirmed" in plain(answer)
    assert {row_id: "failed"} == states(engine)


@on_sqlite
@pytest.mark.parametrize("forged", ["1", "x.0", "1.0,2.0", "1.failed.0", "1.0 " + "9" * 19 + ".0"])
def test_forged_confirmation_is_told(engine, pages, forged):
    """So is one that names rows as no page does; nothing is done."""
    row_id = fail(engine)

    answer = pages.act("discard matching", state="failed", confirmed=forged)

    assert 400 == answer.status_code
    assert "confirmed: is not as this page has made it" in plain(answer)
    assert {row_id: "failed"} == states(engine)


@on_sqlite
def test_confirmation_without_a_state_is_told(engine, pages):
    """Rows are named together with the state that they were seen in."""
    row_id = fail(engine)

    answer = pages.act("discard matching", confirmed=f"{row_id}.0")

    assert 400 == answer.status_code
    assert "choose a state first" in plain(answer)
    assert {row_id: "failed"} == states(engine)


@on_sqlite
def test_more_than_are_counted(engine, pages, monkeypatch):
    """Where counting ended, all up to the newest row are confirmed, which the page says; newer ones stay."""
    monkeypatch.setattr(acting, "_MOST", 2)
    rows = [fail(engine) for _ in range(3)]
    asked = pages.post("/confirm", do="discard matching", state="failed")
    later = fail(engine)

    answer = pages.act(**hidden(asked))

    assert "Discard 2+ messages?" in plain(asked)
    assert f"up to #{rows[-1]}" in plain(asked)
    assert "3 discarded" in plain(answer)
    assert dict.fromkeys(rows, "discarded") | {later: "failed"} == states(engine)


@on_sqlite
def test_force_is_asked_for(engine, pages):
    """What may publish twice is done only where force is ticked, which the confirmation explains."""
    row_id = write_row(engine, state="sent", message_id="M")
    question = pages.post("/confirm", do="replay selected", selected=f"{row_id}.sent.0")
    unforced = pages.act("replay selected", selected=f"{row_id}.sent.0")
    forced = pages.act("replay selected", selected=f"{row_id}.sent.0", force="yes")

    assert "may be delivered twice" in plain(question)
    assert f"#{row_id} is sent, which replay leaves alone unless it is forced" in plain(unforced)
    assert "1 replayed" in plain(forced)
    assert ["replay --force"] == [one["action"] for one in audits(engine)]


@on_sqlite
def test_force_is_asked_for_all_that_match(engine, pages):
    """Without it the confirmation is shown again; nothing is done."""
    row_id = write_row(engine, state="in_doubt")

    unforced = pages.act_on_all("discard", state="in_doubt")
    untouched = states(engine)
    forced = pages.act_on_all("discard", state="in_doubt", force="yes")

    assert 400 == unforced.status_code
    assert "what is in_doubt is discarded by force alone" in plain(unforced)
    assert {row_id: "in_doubt"} == untouched
    assert "1 discarded" in plain(forced)


@on_sqlite
def test_pause_and_resume(engine, pages):
    """A topic is paused and resumed with a reason each; both are audited."""
    paused = pages.post("/pauses", topic="orders", reason="maintenance")
    shown = pages.text("/pauses")
    resumed = pages.post("/pauses/resume", destination="default", topic="orders", reason="done")
    again = pages.post("/pauses/resume", destination="default", topic="orders", reason="done")

    assert [303, 303, 400] == [answer.status_code for answer in (paused, resumed, again)]
    assert "orders operator’s it is resumed ann maintenance" in shown
    assert "default/orders is not paused by an operator; nothing was done" in plain(again)
    assert ["pause", "resume"] == [one["action"] for one in audits(engine)]


@on_sqlite
def test_pause_of_no_topic(engine, pages):
    """What is no name is refused, and what was typed stays in the form."""
    answer = pages.post("/pauses", topic="<b>", reason="why so")

    assert 400 == answer.status_code
    assert "topic: got 3 characters" in plain(answer)
    assert 'value="why so"' in answer.text
    assert [] == audits(engine)


@on_sqlite
def test_automatic_pauses_are_shown(engine, pages):
    """A pause of the circuit breaker is listed as such, and cannot be resumed by hand."""
    pause_automatically(Database(engine), Lane("default", "orders"), for_s=60, reason="Timeout: no answer")

    assert "orders automatic" in pages.text("/pauses")
    assert "Ends by itself, when its cause does." in pages.text("/pauses")


@on_sqlite
def test_list_offers_what_can_be_done(engine, pages):
    """Acts on all that match are offered where the state allows them."""
    fail(engine)
    change(engine, write_row(engine), state="sent")

    assert "Replay all" in pages.text("/messages", state="failed")
    assert "Discard all" not in pages.text("/messages", state="sent")
    assert "Replay all" not in pages.text("/messages")


# --- what every answer has ----------------------------------------------------------------------------------------


@on_sqlite
@pytest.mark.parametrize("path", [*LOOKS, "/messages/nope", "/static/outbox.js"])
def test_answers_are_guarded(engine, pages, path):
    """No page is stored, framed, sniffed, or runs anything but the script that came with it."""
    write_row(engine)
    with pages.client.get(f"/outbox{path}") as answer:
        headers = answer.headers

    assert "nosniff" == headers["X-Content-Type-Options"]
    assert "DENY" == headers["X-Frame-Options"]
    assert "same-origin" == headers["Referrer-Policy"]
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert ("'none'", "'self'", "'none'") == (policy["default-src"], policy["script-src"], policy["frame-ancestors"])
    assert path.startswith("/static") or "no-store" == headers["Cache-Control"]


@on_sqlite
@pytest.mark.parametrize("path", LOOKS)
def test_pages_hold_nothing_inline(engine, pages, path):
    """No inline script, style or handler, and nothing from another site."""
    fail(engine)
    text = pages.client.get(f"/outbox{path}").text

    assert [] == re.findall(r"<style|\sstyle=|\son[a-z]+=|javascript:", text)
    assert [] == re.findall(r"<script(?![^>]*\ssrc=\"/outbox/static/)", text)
    assert [] == re.findall(r"(?:src|href|action)=\"(?!/outbox/|#)", text)


@on_sqlite
def test_global_csrf_protection_is_no_hindrance(migrated_url, engine):
    """An application that protects all its forms itself accepts those of these pages."""
    row_id = fail(engine)
    config = {"WTF_CSRF_FIELD_NAME": "token", "WTF_CSRF_CHECK_DEFAULT": True}
    with flask_app(migrated_url, admin_auth=lambda _request: "ann", **config) as app:
        CSRFProtect(app)
        pages = Pages(app)
        (token,) = set(re.findall(r'name="token" value="([^"]+)"', pages.get("/pauses").text))
        form = {"do": "replay selected", "selected": f"{row_id}.failed.0", "reason": "why"}
        bare = pages.client.post("/outbox/act", data=form)
        signed = pages.client.post("/outbox/act", data=form | {"token": token})

    assert 400 == bare.status_code
    assert "1 replayed" in plain(signed)


@on_sqlite
def test_pages_without_a_secret_key(migrated_url, engine):
    """Without a key to sign forms with the pages only look, and say why."""
    row_id = fail(engine)
    with flask_app(migrated_url, admin_auth=lambda _request: "ann", SECRET_KEY=None) as app:
        pages = Pages(app)
        looks = [pages.client.get(f"/outbox{path}") for path in LOOKS]
        answer = pages.client.post("/outbox/act", data={"do": "replay selected", "selected": f"{row_id}.failed.0"})

    assert [200] * len(LOOKS) == [look.status_code for look in looks]
    assert "no SECRET_KEY" in plain(looks[0])
    assert 403 == answer.status_code
    assert "no SECRET_KEY" in plain(answer)
    assert {row_id: "failed"} == states(engine)
