"""Who may do what in the admin: every role, every act, every method."""

from itertools import product

import pytest

from outbox.admin import RIGHTS
from tests.conftest import _engine
from tests.django_projects import ADMIN, Operator, admin_project, migrated_project, plain, set_up
from tests.rows import audits, states, write_row

set_up()

from sqlalchemy import make_url  # noqa: E402 - Django must be set up first

ROLES = {
    "anonymous": (),
    "customer": RIGHTS,
    "stranger": (),
    "viewer": ("view",),
    "reader": ("view", "view_body"),
    "replayer": ("view", "replay"),
    "forcer": ("view", "replay", "force"),
    "discarder": ("view", "discard"),
    "pauser": ("view", "pause"),
    "blind": tuple(right for right in RIGHTS if right != "view"),
    "admin": RIGHTS,
}
LOOKS = ("", "1/change/", "overview/", "failed/", "pauses/", "audit/")
REASON = {"reason": "endpoint repaired"}
# The rights that each act needs besides view, its path, and its form; row 1 is failed, row 2 sent.
ACTS = {
    "view body": ({"view_body"}, "1/body/", {}),
    "ask to replay": ({"replay"}, "confirm/", {"do": "replay selected", "selected": "1.failed.0"}),
    "ask by Django's list": ({"replay"}, "", {"action": "replay", "_selected_action": "1"}),
    "replay": ({"replay"}, "act/", {"do": "replay selected", "selected": "1.failed.0"} | REASON),
    "replay all": ({"replay"}, "act/", {"do": "replay matching", "state": "failed", "confirmed": "1.0"} | REASON),
    "replay by Django's list": ({"replay"}, "", {"action": "replay", "_selected_action": "1"} | REASON),
    "replay by force": (
        {"replay", "force"},
        "act/",
        {"do": "replay selected", "selected": "2.sent.0", "force": "yes"} | REASON,
    ),
    "discard": ({"discard"}, "act/", {"do": "discard selected", "selected": "1.failed.0"} | REASON),
    "pause": ({"pause"}, "pauses/", {"topic": "orders"} | REASON),
    "resume": ({"pause"}, "pauses/resume/", {"destination": "default", "topic": "orders"} | REASON),
}
POSTS = tuple(dict.fromkeys(path for _, path, _ in ACTS.values()))


@pytest.fixture(scope="session")
def project_database(tmp_path_factory):
    return migrated_project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def engine(project_database, tmp_path):
    with admin_project(tmp_path, project_database) as url:
        engine = _engine(make_url(url))
        write_row(engine, state="failed", last_error_code="Timeout", body="the secret body")
        write_row(engine, state="sent")
        yield engine
        engine.dispose()


def as_role(role):
    return Operator(None if role == "anonymous" else role, ROLES[role], staff=role != "customer")


def permitted(role, act):
    return role != "customer" and ACTS[act][0] | {"view"} <= set(ROLES[role])


def refusal(role):
    """Whoever is nobody, or no staff, is asked to sign in; whoever may not is told."""
    return 302 if role in {"anonymous", "customer"} else 403


@pytest.mark.parametrize("role", ROLES)
def test_who_may_look(engine, role):
    """Pages open to staff with the right to view, and to nobody else; nor is the model in others' index."""
    operator = as_role(role)
    answers = [operator.get(path) for path in LOOKS]
    may = role != "customer" and "view" in ROLES[role]

    assert {200 if may else refusal(role)} == {answer.status_code for answer in answers}
    assert "the secret body" not in "".join(answer.text for answer in answers)
    assert may == (f'href="{ADMIN}"' in operator.client.get("/admin/").text)


@pytest.mark.parametrize("role", ROLES)
def test_who_may_not_act(engine, role):
    """Without every right that an act needs nothing is done, nothing is shown, nothing is written down."""
    operator, before = as_role(role), states(engine)
    refused = [act for act in ACTS if not permitted(role, act)]
    answers = {act: operator.post(ACTS[act][1], **ACTS[act][2]) for act in refused}

    assert dict.fromkeys(refused, refusal(role)) == {act: answer.status_code for act, answer in answers.items()}
    assert "the secret body" not in "".join(answer.text for answer in answers.values())
    assert (before, []) == (states(engine), audits(engine))


@pytest.mark.parametrize(("role", "act"), [pair for pair in product(ROLES, ACTS) if permitted(*pair)])
def test_who_may_act(engine, role, act):
    """With every right that it needs an act is done, and the audit bears the name of who did it."""
    answer = as_role(role).post(ACTS[act][1], **ACTS[act][2])

    changes = not act.startswith(("ask", "resume"))
    assert (400 if act == "resume" else 302 if act == "pause" else 200) == answer.status_code
    assert [role] * changes == [one["by"] for one in audits(engine)]


@pytest.mark.parametrize("forged", ["missing", "invented"])
def test_acts_need_a_token(engine, forged):
    """A form that was not made for this session is refused, whoever sends it."""
    operator, before = as_role("admin"), states(engine)
    operator.token()
    fields = {"csrfmiddlewaretoken": "x" * 64} if forged == "invented" else {}
    answers = [operator.client.post(f"{ADMIN}{path}", form | fields) for _, path, form in ACTS.values()]

    assert {403} == {answer.status_code for answer in answers}
    assert all("CSRF verification failed" in plain(answer) for answer in answers)
    assert (before, []) == (states(engine), audits(engine))


def test_only_posts_change_anything(engine):
    """Whatever else is sent anywhere, with a whole form in it, changes nothing."""
    operator, before = as_role("admin"), states(engine)
    form = {"do": "replay selected", "selected": "1.failed.0", "topic": "orders"} | REASON
    headers = {"X-CSRFToken": operator.token()}
    statuses = {}
    for path, method in product((*LOOKS, *POSTS), ("get", "head", "put", "patch", "delete", "options")):
        data = form if method in {"get", "head"} else "do=replay+selected"
        kind = {} if method in {"get", "head"} else {"content_type": "application/x-www-form-urlencoded"}
        answer = getattr(operator.client, method)(f"{ADMIN}{path}", data, headers=headers, **kind)
        statuses[path, method] = answer.status_code

    assert (before, []) == (states(engine), audits(engine))
    assert {405} == {s for (path, method), s in statuses.items() if method in {"put", "patch", "delete"}}
    assert {405} == {statuses[path, "get"] for path in POSTS if path not in {"", "pauses/"}}


def test_looks_take_no_posts(engine):
    """Pages for looking take no forms."""
    operator = as_role("admin")

    assert {405} == {operator.post(path).status_code for path in LOOKS if path not in {"", "pauses/"}}


@pytest.mark.parametrize("role", ["viewer", "reader", "replayer", "discarder", "pauser"])
def test_pages_offer_what_a_role_may_do(engine, role):
    """Buttons are there for those who may press them."""
    operator = as_role(role)
    offered = "".join(operator.get(path).text for path in LOOKS) + operator.get("", state="failed").text

    assert ("view_body" in ROLES[role]) == ("Show the body" in offered)
    assert ("replay" in ROLES[role]) == ('value="replay matching"' in offered)
    assert ("discard" in ROLES[role]) == ('value="discard matching"' in offered)
    assert ("pause" in ROLES[role]) == ("Pause a topic" in offered)


def test_models_cannot_be_edited(engine):
    """There is no way to add, change or delete a message, not even for a superuser."""
    root = Operator("root", superuser=True)
    paths = ("add/", "1/delete/", "1/history/", "1/")

    assert {404} == {root.get(path).status_code for path in paths}
    assert f'href="{ADMIN}add/"' not in root.get().text + root.client.get("/admin/").text
