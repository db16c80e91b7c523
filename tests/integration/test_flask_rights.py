"""Who may do what on the operators' pages: every role, every act, every method."""

import re
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest

from outbox.admin import RIGHTS
from tests.flask_apps import Pages, Role, flask_app, plain
from tests.rows import audits, states, write_row

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"])

ROLES = {
    "anonymous": None,
    "blank": " ",
    "stranger": Role("stranger"),
    "viewer": Role("viewer", frozenset({"view"})),
    "reader": Role("reader", frozenset({"view", "view_body"})),
    "replayer": Role("replayer", frozenset({"view", "replay"})),
    "forcer": Role("forcer", frozenset({"view", "replay", "force"})),
    "discarder": Role("discarder", frozenset({"view", "discard"})),
    "pauser": Role("pauser", frozenset({"view", "pause"})),
    "blind": Role("blind", frozenset(RIGHTS) - {"view"}),
    "admin": Role("admin", frozenset(RIGHTS)),
    "named": "ann",
}
LOOKS = ("/", "/messages", "/messages/1", "/failed", "/pauses", "/audit")
REASON = {"reason": "endpoint repaired"}
# The rights that each act needs besides view, its path, and its form; row 1 is failed, row 2 sent.
ACTS = {
    "view body": ({"view_body"}, "/messages/1/body", {}),
    "ask to replay": ({"replay"}, "/confirm", {"do": "replay selected", "selected": "1.failed.0"}),
    "ask to discard": ({"discard"}, "/confirm", {"do": "discard matching", "state": "failed"}),
    "replay": ({"replay"}, "/act", {"do": "replay selected", "selected": "1.failed.0"} | REASON),
    "replay all": ({"replay"}, "/act", {"do": "replay matching", "state": "failed", "confirmed": "1.0"} | REASON),
    "replay by force": (
        {"replay", "force"},
        "/act",
        {"do": "replay selected", "selected": "2.sent.0", "force": "yes"} | REASON,
    ),
    "discard": ({"discard"}, "/act", {"do": "discard selected", "selected": "1.failed.0"} | REASON),
    "discard by force": (
        {"discard", "force"},
        "/act",
        {"do": "discard selected", "selected": "1.failed.0", "force": "yes"} | REASON,
    ),
    "pause": ({"pause"}, "/pauses", {"topic": "orders"} | REASON),
    "resume": ({"pause"}, "/pauses/resume", {"destination": "default", "topic": "orders"} | REASON),
}
POSTS = tuple(dict.fromkeys(path for _, path, _ in ACTS.values()))
METHODS = ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS")


def rights(role):
    who = ROLES[role]
    return frozenset(RIGHTS) if who == "ann" else getattr(who, "rights", frozenset())


@pytest.fixture
def app(migrated_url, engine):
    """An app whose every request names its role itself, over a failed row and a sent one."""
    write_row(engine, state="failed", last_error_code="Timeout", body="the secret body")
    write_row(engine, state="sent")
    with flask_app(migrated_url, admin_auth=lambda request: ROLES[request.headers["X-Role"]]) as app:
        yield app


def as_role(app, role):
    """The pages with the headers of a role, and a session in which forms have been signed."""
    pages = Pages(app)
    pages.client.environ_base["HTTP_X_ROLE"] = "admin"
    token = pages.token()
    pages.client.environ_base["HTTP_X_ROLE"] = role
    return pages.client, token


def permitted(role, act):
    return ACTS[act][0] | {"view"} <= rights(role)


@pytest.mark.parametrize("role", ROLES)
def test_who_may_look(app, role):
    """Pages open to those with the right to view, and to nobody else."""
    client, _ = as_role(app, role)

    answers = [client.get(f"/outbox{path}") for path in LOOKS]

    assert {200 if "view" in rights(role) else 403} == {answer.status_code for answer in answers}
    assert "the secret body" not in "".join(answer.text for answer in answers)


@pytest.mark.parametrize("role", ROLES)
def test_who_may_not_act(app, engine, role):
    """Without every right that an act needs nothing is done, nothing is shown, nothing is written down."""
    client, token = as_role(app, role)
    before = states(engine)
    refused = [act for act in ACTS if not permitted(role, act)]

    answers = {act: client.post(f"/outbox{ACTS[act][1]}", data=ACTS[act][2] | {"csrf_token": token}) for act in refused}

    assert dict.fromkeys(refused, 403) == {act: answer.status_code for act, answer in answers.items()}
    assert "the secret body" not in "".join(answer.text for answer in answers.values())
    assert (before, []) == (states(engine), audits(engine))


@pytest.mark.parametrize(("role", "act"), [pair for pair in product(ROLES, ACTS) if permitted(*pair)])
def test_who_may_act(app, engine, role, act):
    """With every right that it needs an act is done, and the audit bears the name of who did it."""
    _, path, form = ACTS[act]
    client, token = as_role(app, role)

    answer = client.post(f"/outbox{path}", data=form | {"csrf_token": token})

    changes = not act.startswith(("ask", "resume"))
    assert (400 if act == "resume" else 303 if act == "pause" else 200) == answer.status_code
    assert [getattr(ROLES[role], "name", "ann")] * changes == [one["by"] for one in audits(engine)]


@pytest.mark.parametrize("forged", ["missing", "invented", "another session's"])
def test_acts_need_a_token(app, engine, forged):
    """A form that was not made for this session is refused, whoever sends it."""
    client, _ = as_role(app, "admin")
    fields = {"missing": {}, "invented": {"csrf_token": "x.y.z"}}.get(forged, {"csrf_token": as_role(app, "named")[1]})
    before = states(engine)

    answers = [client.post(f"/outbox{path}", data=form | fields) for _, path, form in ACTS.values()]

    assert {403} == {answer.status_code for answer in answers}
    assert all("was not made by these pages" in plain(answer) for answer in answers)
    assert (before, []) == (states(engine), audits(engine))


def test_only_posts_change_anything(app, engine):
    """Whatever else is sent anywhere, with a whole form in it, changes nothing."""
    client, token = as_role(app, "admin")
    form = {"do": "replay selected", "selected": "1.failed.0", "topic": "orders", "csrf_token": token} | REASON
    before = states(engine)
    statuses = {}
    for path, method in product((*LOOKS, *POSTS), METHODS):
        query = form if method == "GET" else {}
        statuses[path, method] = client.open(f"/outbox{path}", method=method, data=form, query_string=query).status_code

    assert (before, []) == (states(engine), audits(engine))
    assert {405} == {status for (_, method), status in statuses.items() if method in {"PUT", "PATCH", "DELETE"}}
    assert {405} == {statuses[path, "GET"] for path in POSTS if path != "/pauses"}


def test_looks_take_no_posts(app):
    """Pages for looking take no forms."""
    client, token = as_role(app, "admin")

    assert {405} == {
        client.post(f"/outbox{path}", data={"csrf_token": token}).status_code for path in LOOKS if path != "/pauses"
    }


@pytest.mark.parametrize("role", ["viewer", "reader", "replayer", "discarder", "pauser"])
def test_pages_offer_what_a_role_may_do(app, role):
    """Buttons are there for those who may press them."""
    client, _ = as_role(app, role)
    offered = "".join(client.get(f"/outbox{path}").text for path in (*LOOKS, "/messages?state=failed"))

    assert ("view_body" in rights(role)) == ("Show the body" in offered)
    assert (
        ("replay" in rights(role)) == ('value="replay selected"' in offered) == ('value="replay matching"' in offered)
    )
    assert ("discard" in rights(role)) == ('value="discard matching"' in offered)
    assert ("pause" in rights(role)) == ("Pause a topic" in offered)


def test_force_is_offered_to_those_who_may(app):
    """Who may not use force is told, instead of asked."""
    form = {"do": "replay selected", "selected": "2.sent.0"}
    told = {}
    for role in ("replayer", "forcer"):
        client, token = as_role(app, role)
        told[role] = client.post("/outbox/confirm", data=form | {"csrf_token": token}).text

    assert 'name="force"' not in told["replayer"]
    assert "which you may not use" in told["replayer"]
    assert 'name="force"' in told["forcer"]


def test_no_pages_without_admin_auth(migrated_url):
    """An app that says nobody may use the pages has none, and nothing raises."""
    with flask_app(migrated_url) as app:
        client = app.test_client()
        answers = [client.get(f"/outbox{path}").status_code for path in (*LOOKS, "/static/outbox.css")]
        posted = client.post("/outbox/act").status_code

    assert {404} == {*answers, posted}


def test_style_sheet_is_for_everybody(app):
    """The page that says no is no uglier than the others."""
    client, _ = as_role(app, "anonymous")
    with client.get("/outbox/static/outbox.css") as answer:
        assert (200, "text/css; charset=utf-8") == (answer.status_code, answer.headers["Content-Type"])


def test_refusal_says_who_and_what(app):
    """Who is refused reads why."""
    client, token = as_role(app, "viewer")
    refused = client.post("/outbox/pauses", data={"topic": "orders", "csrf_token": token} | REASON)
    client.environ_base["HTTP_X_ROLE"] = "anonymous"
    anonymous = client.get("/outbox/")

    assert "viewer may not do this: pause." in plain(refused)
    assert "You are not signed in as one." in plain(anonymous)
    assert "<nav" not in anonymous.text


def test_answer_of_admin_auth_that_is_no_user(migrated_url):
    """A callable that gives something else is a defect of the application's, and no way in."""
    with (
        flask_app(migrated_url, admin_auth=lambda _request: 7) as app,
        pytest.raises(TypeError, match="gave int; give"),
    ):
        app.test_client().get("/outbox/")


def test_operators_of_the_page(app):
    """The program of docs/pages.md gives staff some rights, their leads more, and nobody else any."""
    page = (Path(__file__).parents[2] / "docs" / "pages.md").read_text()
    (program,) = [
        one for one in re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL) if "class" in one
    ]
    names = {"current_user": lambda user: user}
    exec(program, names)
    lead, staff, guest = (SimpleNamespace(email="e", is_staff=staff, is_lead=staff > 1) for staff in (2, 1, 0))
    found = [names["admin_auth"](user) for user in (lead, staff, guest, None)]

    assert [None, None] == found[2:]
    assert [{"view", "replay", "view_body", "discard", "pause"}, {"view", "replay"}] == [
        {right for right in RIGHTS if operator.can(right)} for operator in found[:2]
    ]
