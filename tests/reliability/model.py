"""A small model of half messages, explored to the last state: one row, its half messages, two relays, a checker.

What a relay or a checker does between two requests is one step; requests may be lost, arrive late, be done and not be
answered; handles expire; processes die; the database does what it then reports as failed. There is no time: whatever a
deadline would keep apart may happen in any order, except that a half message is offered only when its publish handle
has expired, and again only when its last offer's has. The broker is a hostile one: a commit on a handle that is still
valid delivers again.

A step that changes the row's state names the verb of `outbox.states` that does it, so that the exploration yields the
table of transitions. `NAIVE` are designs that break a promise; each is one switch.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

__all__ = ["NAIVE", "Explored", "Rules", "explore"]

PENDING, COMMITTING, SENT, FAILED = "pending", "committing", "sent", "failed"
IN_DOUBT, DISCARDED, GONE = "in_doubt", "discarded", "gone"
#: Where a row may rest.
_ENDS = (SENT, FAILED, IN_DOUBT, DISCARDED, GONE)
_OPEN, _COMMITTED, _ROLLED_BACK, _DROPPED = "open", "committed", "rolled back", "dropped"
_IDLE, _POSTED, _POPPED, _ENDING, _ANSWERED = "idle", "posted", "popped", "ending", "answered"
_SENDERS, _OFFER, _EXPIRED = "sender's", "offer", "expired"


@dataclass(frozen=True)
class Rules:
    """The design, with its switches; the sizes bound what is explored."""

    relays: int = 2
    halves: int = 2
    replays: int = 1
    plain: bool = False
    election: bool = True
    token_election: bool = False
    roll_back_on_database_error: bool = False
    resend_commit: bool = False
    adopt_failed: bool = False
    replay_in_flight: bool = False
    roll_back_undecided: bool = False
    elect_without_row: bool = False
    sent_without_proof: bool = False
    settle: bool = True
    silence_without_canary: bool = False


NAIVE = {
    "plain": "POST and try again",
    "no_election": "every half message that is answered is committed",
    "token_election": "the row remembers the attempt, not the MessageId: twins of one POST both win",
    "roll_back_on_database_error": "an election whose outcome is unclear is taken for lost",
    "resend_commit": "a COMMIT without an answer is sent again on the same handle",
    "adopt_failed": "a failed row is no decision: a late half message is adopted",
    "replay_in_flight": "an operator replays a row that is in flight",
    "roll_back_undecided": "the checker rolls back half messages that nobody elected yet",
    "elect_without_row": "the decision is kept apart from the row, which may be gone",
    "sent_without_proof": "a COMMIT is as good as its answer",
    "no_settle": "a row whose commit was done and never answered waits for ever",
    "silence_without_canary": "not having heard of the half message proves that it is committed",
}
"""Switches, and what each of the designs believes."""


def naive(name: str) -> Rules:
    """The rules with one design in the place of the right one."""
    match name:
        case "no_election":
            return Rules(election=False)
        case "no_settle":
            return Rules(settle=False)
        case "token_election":
            return Rules(token_election=True, relays=1)
        case _:
            return replace(Rules(), **{name: True})


class Half(NamedTuple):
    """A half message at the broker: of which replay, its life, how often delivered, and which handle is good."""

    replay: int
    life: str = _OPEN
    delivered: int = 0
    handle: str = _SENDERS
    twin_of: int = -1


class Client(NamedTuple):
    """A relay or a checker: what it is doing, with which half message, by which handle."""

    doing: str = _IDLE
    half: int = -1
    handle: str = ""


class Late(NamedTuple):
    """A request for whose answer nobody waits."""

    commits: bool
    half: int
    handle: str


class World(NamedTuple):
    """One state of everything."""

    state: str = PENDING
    elected: int = -1
    replay: int = 0
    halves: tuple[Half, ...] = ()
    clients: tuple[Client, ...] = ()
    late: frozenset[Late] = frozenset()
    #: Decisions of a design that keeps them apart from the row.
    apart: tuple[int, ...] = (-1, -1)
    quarantined: bool = False


class Step(NamedTuple):
    """A step: who does what, the verb if the row's state changes, and what comes of it."""

    what: str
    verb: str
    after: World


@dataclass
class Explored:
    """What an exploration found: the first broken promise with the way to it, and the transitions that were taken."""

    states: int = 0
    violation: str = ""
    trace: list[str] = field(default_factory=list)
    transitions: set[tuple[str, str, str]] = field(default_factory=set)


def explore(rules: Rules, most: int = 2_000_000) -> Explored:
    """Visit every state, breadth first, until a promise is broken; then ask whether every state has a way to rest."""
    found = Explored()
    first = World(clients=(Client(),) * (rules.relays + 1))
    parents: dict[World, tuple[World, str] | None] = {first: None}
    back: dict[World, list[World]] = {}
    queue = deque([first])
    while queue:
        world = queue.popleft()
        if problem := _problem(world, rules):
            return _told(found, problem, world, parents)
        for step in _steps(world, rules):
            after = _tidied(step.after, rules)
            if step.verb:
                found.transitions.add((step.verb, world.state, after.state))
            back.setdefault(after, []).append(world)
            if after not in parents:
                parents[after] = (world, step.what)
                queue.append(after)
        assert len(parents) <= most, "too many states"
    found.states = len(parents)
    stuck = _stuck(parents, back)
    return _told(found, "the row can never come to rest", stuck, parents) if stuck else found


def _told(found: Explored, problem: str, world: World, parents: dict[World, tuple[World, str] | None]) -> Explored:
    found.states, found.violation = len(parents), problem
    while (parent := parents[world]) is not None:
        world, what = parent
        found.trace.insert(0, what)
    return found


def _stuck(parents: dict[World, tuple[World, str] | None], back: dict[World, list[World]]) -> World | None:
    resting = deque(world for world in parents if world.state in _ENDS)
    well = set(resting)
    while resting:
        for before in back.get(resting.popleft(), ()):
            if before not in well:
                well.add(before)
                resting.append(before)
    return next((world for world in parents if world not in well), None)


def _problem(world: World, rules: Rules) -> str:
    for replay in range(rules.replays + 1):
        delivered = [half.delivered for half in world.halves if half.replay == replay]
        if sum(delivered) > 1:
            return f"published {sum(delivered)} times in replay {replay}"
        if world.state == FAILED and replay == world.replay and sum(delivered):
            return "failed, and published"
    if (
        world.state == SENT
        and not rules.plain
        and not any(half.delivered for half in world.halves if half.replay == world.replay)
    ):
        return "sent, and not published"
    return ""


def _tidied(world: World, rules: Rules) -> World:
    """Without requests that can have no effect, and with relays, which are alike, in one order."""
    late = frozenset(
        one
        for one in world.late
        if world.halves[one.half].handle == one.handle
        and world.halves[one.half].life in ((_OPEN, _COMMITTED) if one.commits else (_OPEN,))
    )
    clients = tuple(sorted(world.clients[: rules.relays])) + world.clients[rules.relays :]
    return world._replace(late=late, clients=clients)


# --- steps --------------------------------------------------------------------------------------------------------


def _steps(world: World, rules: Rules) -> Iterator[Step]:
    for number, client in enumerate(world.clients):
        is_relay = number < rules.relays
        if client.doing != _IDLE:
            yield Step("a process dies", "", _with_client(world, number, Client()))
        match client.doing:
            case "idle":
                yield from _post(world, number, rules) if is_relay else _pop(world, number)
            case "posted":
                yield from _elect(world, number, client, rules)
            case "popped":
                yield from _check(world, number, client, rules)
            case "ending":
                yield from _commit(world, number, client, rules)
            case "answered":
                yield _confirm(world, number, client)
    yield from _broker(world)
    yield from _row(world, rules)


def _with_client(world: World, number: int, client: Client) -> World:
    clients = world.clients
    return world._replace(clients=(*clients[:number], client, *clients[number + 1 :]))


def _with_half(world: World, number: int, half: Half) -> World:
    """The handle of a half message has changed: whoever holds the old one has an expired one."""
    halves, old = world.halves, world.halves[number]
    world = world._replace(halves=(*halves[:number], half, *halves[number + 1 :]))
    if half.handle == old.handle == _OFFER or half.handle != old.handle:
        clients = tuple(
            client._replace(handle=_EXPIRED) if client.half == number and client.handle == old.handle else client
            for client in world.clients
        )
        late = frozenset(one for one in world.late if one.half != number)
        if half.life == old.life:
            world = world._replace(clients=clients, late=late)
    return world


def _post(world: World, number: int, rules: Rules) -> Iterator[Step]:
    if world.state != PENDING or len(world.halves) >= rules.halves:
        return
    half = len(world.halves)
    posted = world._replace(halves=(*world.halves, Half(world.replay)))
    if rules.plain:
        published = world._replace(halves=(*world.halves, Half(world.replay, _COMMITTED, 1, _EXPIRED)))
        yield Step("a relay posts; the answer is lost", "", published)
        yield Step("a relay posts", "publish", published._replace(state=SENT))
        return
    yield Step("a relay posts a half message; the answer is lost", "", posted)
    yield Step("a relay posts a half message", "", _with_client(posted, number, Client(_POSTED, half, _SENDERS)))
    if rules.token_election:
        twins = posted._replace(halves=(*posted.halves, Half(world.replay, twin_of=half)))
        yield Step("a POST is doubled", "", _with_client(twins, number, Client(_POSTED, half, _SENDERS)))


def _elect(world: World, number: int, client: Client, rules: Rules) -> Iterator[Step]:
    idle = _with_client(world, number, Client())
    on_error = _roll_back(idle, client) if rules.roll_back_on_database_error else idle
    yield Step("the database fails, nothing is done", "", on_error)
    if decided := _decided(world, client.half, rules):
        yield from _commit_or_leave(decided, number, client, "elect" if decided.state != world.state else "")
        left = decided._replace(clients=on_error.clients, late=on_error.late)
        yield Step("elected, and the database fails", "elect" if decided.state != world.state else "", left)
    elif _is_elected(world, client.half, rules) and world.state == COMMITTING:
        yield from _commit_or_leave(world, number, client, "")
    elif not _is_elected(world, client.half, rules):
        yield Step("the election is lost", "", _roll_back(idle, client))
    else:
        yield Step("elected already, and beyond it", "", idle)


def _decided(world: World, half: int, rules: Rules) -> World | None:
    """The world once this half message is the row's; None where the row is decided."""
    replay = world.halves[half].replay
    if not rules.election:
        return world._replace(state=COMMITTING, elected=half) if world.state in (PENDING, COMMITTING) else None
    if rules.elect_without_row and world.state == GONE and world.apart[replay] < 0:
        apart = tuple(half if place == replay else one for place, one in enumerate(world.apart))
        return world._replace(apart=apart)
    if world.state == PENDING and world.elected < 0 and world.replay == replay:
        return world._replace(state=COMMITTING, elected=half)
    return None


def _is_elected(world: World, half: int, rules: Rules) -> bool:
    if world.elected == half and world.state != GONE:
        return True
    if rules.elect_without_row and world.apart[world.halves[half].replay] == half:
        return True
    if rules.token_election and world.elected >= 0 and world.state != GONE:
        mine, its = world.halves[half], world.halves[world.elected]
        return mine.twin_of == world.elected or its.twin_of == half
    return False


def _commit_or_leave(world: World, number: int, client: Client, verb: str) -> Iterator[Step]:
    yield Step("elected; too old to commit", verb, _with_client(world, number, Client()))
    if client.handle != _EXPIRED:
        yield Step("elected; COMMIT", verb, _with_client(world, number, client._replace(doing=_ENDING)))


def _roll_back(world: World, client: Client) -> World:
    if client.handle == _EXPIRED:
        return world
    return world._replace(late=world.late | {Late(commits=False, half=client.half, handle=client.handle)})


def _commit(world: World, number: int, client: Client, rules: Rules) -> Iterator[Step]:
    idle = _with_client(world, number, Client())
    waiting = Late(commits=True, half=client.half, handle=client.handle)
    arrived = _arrive(world, waiting) if client.handle != _EXPIRED else world
    took_effect = arrived != world
    unanswered = "COMMIT done, its answer lost"
    if rules.sent_without_proof and world.state == COMMITTING and world.elected == client.half:
        yield Step("COMMIT lost, believed all the same", "confirm", idle._replace(state=SENT))
    else:
        yield Step("COMMIT lost", "", idle)
    if not took_effect:
        return
    yield Step("COMMIT is late", "", idle._replace(late=idle.late | {waiting}))
    yield Step(unanswered, "", _with_client(arrived, number, Client()))
    yield Step("COMMIT is answered", "", _with_client(arrived, number, client._replace(doing=_ANSWERED, handle="")))
    if rules.resend_commit:
        yield Step(f"{unanswered}; COMMIT again", "", arrived)


def _arrive(world: World, request: Late) -> World:
    """The broker ends a half message, if the handle is good."""
    half = world.halves[request.half]
    if half.handle != request.handle:
        return world
    if request.commits and half.life in (_OPEN, _COMMITTED):
        ended = half._replace(life=_COMMITTED, delivered=min(half.delivered + 1, 2))
    elif not request.commits and half.life == _OPEN:
        ended = half._replace(life=_ROLLED_BACK)
    else:
        return world
    halves = world.halves
    return world._replace(halves=(*halves[: request.half], ended, *halves[request.half + 1 :]))


def _confirm(world: World, number: int, client: Client) -> Step:
    idle = _with_client(world, number, Client())
    if world.elected == client.half and world.state in (COMMITTING, IN_DOUBT, SENT):
        return Step("confirm", "" if world.state == SENT else "confirm", idle._replace(state=SENT))
    return Step("nothing to confirm", "", idle)


# --- the checker --------------------------------------------------------------------------------------------------


def _pop(world: World, number: int) -> Iterator[Step]:
    for place, half in enumerate(world.halves):
        if half.life == _OPEN and half.handle == _EXPIRED:
            offered = _with_half(world, place, half._replace(handle=_OFFER))
            yield Step("the checker pops", "", _with_client(offered, number, Client(_POPPED, place, _OFFER)))
            yield Step("a poll's answer is lost", "", offered)


def _check(world: World, number: int, client: Client, rules: Rules) -> Iterator[Step]:
    idle, half = _with_client(world, number, Client()), world.halves[client.half]
    committing = _with_client(world, number, client._replace(doing=_ENDING))
    rolling_back = _roll_back(idle, client)
    if client.handle == _EXPIRED or world.quarantined:
        yield Step("too late for this offer, or not ours", "", idle)
    elif world.state == GONE and not (rules.elect_without_row and world.apart[half.replay] in (-1, client.half)):
        yield Step("the row is gone: ROLLBACK", "", rolling_back)
    elif _is_elected(world, client.half, rules):
        yield Step("elected: COMMIT", "", committing)
    elif decided := _decided(world, client.half, rules):
        if rules.roll_back_undecided:
            yield Step("undecided: ROLLBACK", "", rolling_back)
            return
        verb = "adopt" if decided.state != world.state else ""
        yield Step("adopt; COMMIT", verb, decided._replace(clients=committing.clients))
        yield Step("adopted, and the database fails", verb, decided._replace(clients=idle.clients))
    elif rules.adopt_failed and world.state == FAILED and half.replay == world.replay:
        yield Step("a failed row is undecided: COMMIT", "", committing)
    else:
        yield Step("decided for another: ROLLBACK", "", rolling_back)


# --- the broker, and what befalls the row -------------------------------------------------------------------------


def _broker(world: World) -> Iterator[Step]:
    for request in world.late:
        without = world._replace(late=world.late - {request})
        yield Step("a late request arrives", "", _arrive(without, request))
    for place, half in enumerate(world.halves):
        if half.handle != _EXPIRED:
            yield Step("a handle expires", "", _with_half(world, place, half._replace(handle=_EXPIRED)))
        elif half.life == _OPEN and world.state in (IN_DOUBT, DISCARDED):
            yield Step("a half message's day is over", "", _with_half(world, place, half._replace(life=_DROPPED)))


def _row(world: World, rules: Rules) -> Iterator[Step]:
    match world.state:
        case "pending":
            yield Step("give up", "refuse", world._replace(state=FAILED))
            # A message that is no half message.
            if not world.halves and not rules.plain:
                yield Step("an ordinary publish", "publish", _published(world))
        case "committing":
            elected = world.halves[world.elected]
            # Not offered again: its commit arrived. With the canary this is known, without it it is a guess.
            if rules.settle and (elected.life not in (_OPEN, _DROPPED) or rules.silence_without_canary):
                yield Step("settled by silence", "settle", world._replace(state=SENT))
            if rules.settle:
                yield Step("its day is over", "doubt", world._replace(state=IN_DOUBT))
        case "sent" | "discarded":
            yield Step("purge", "", world._replace(state=GONE))
    yield from _operator(world, rules)


def _published(world: World) -> World:
    return world._replace(state=SENT, halves=(Half(world.replay, _COMMITTED, 1, _EXPIRED),), elected=0)


def _operator(world: World, rules: Rules) -> Iterator[Step]:
    if world.replay < rules.replays:
        in_flight = rules.replay_in_flight and world.state in (PENDING, COMMITTING)
        if world.state in (FAILED, SENT, IN_DOUBT) or in_flight:
            again = world._replace(state=PENDING, elected=-1, replay=world.replay + (not in_flight))
            yield Step("replay", "replay", again)
    if world.state in (FAILED, IN_DOUBT):
        yield Step("discard", "discard", world._replace(state=DISCARDED))
    all_idle = all(client.doing == _IDLE for client in world.clients)
    if world.state in (PENDING, COMMITTING, FAILED) and all_idle and not world.quarantined and not rules.plain:
        yield Step("quarantine", "quarantine", world._replace(state=IN_DOUBT, quarantined=True))
