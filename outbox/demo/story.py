"""The story: what happens on the stage, in order, and what is said about it."""

import time
from collections.abc import Callable
from pathlib import Path

from outbox.commands import Failure
from outbox.demo.screen import Screen
from outbox.demo.shop import Shop
from outbox.demo.stage import LOG, Stage, celery_app, celery_worker, relay_process, stage
from outbox.demo.verdict import Evidence
from outbox.demo.witnesses import Glance, Witnesses
from outbox.migrate import head, upgrade

__all__ = ["ORDERS", "play"]

ORDERS = 1000
REFUSED = 100
CUSTOMERS = 50
#: Orders at once in the beginning, and how many come in each second later.
RUSH, A_SECOND = 100, 180
#: Seconds that the broker takes to answer.
AWAY_S = 0.01
#: Fault of the emulator → how likely a publish meets it.
FAULTS = {"drop_before": 0.03, "accept_then_drop": 0.01, "accept_then_500": 0.01}
#: How many orders are taken when the endpoint goes away, and for how many seconds it does.
OUTAGE_AFTER, OUTAGE_S = 820, 2.0

_LOOK_S = 0.02
_STUCK_S = 30.0


def play(directory: Path, seed: int, screen: Screen) -> Evidence:
    """Play the story in an empty directory, and return what the witnesses say in the end.

    Raises:
        Failure: it came to a halt before its end.
    """
    with stage(directory) as here:
        _set_up(here, seed, screen)
        # From here on each commit of this process nudges, whether a worker listens or not.
        app = celery_app(here)
        shop = Shop(here.database_url, seed, orders=ORDERS, refused=REFUSED, customers=CUSTOMERS)
        witnesses = Witnesses(here, shop)
        with screen.bars(orders=ORDERS, messages=ORDERS - REFUSED) as show, shop:
            watch = _Watch(witnesses, show)
            _kill_a_relay(here, shop, screen, watch)
            with celery_worker(app):
                screen.line("a Celery worker takes over, nudged after each commit")
                shop.open(A_SECOND)
                screen.line(f"the shop opens: {A_SECOND} orders a second")
                watch.until(lambda seen: seen.taken >= OUTAGE_AFTER)
                _cut_the_endpoint_off(here, screen, watch)
                watch.until(lambda _: not shop.is_open)
                seen = watch.look()
                screen.line(f"the shop closes: {seen.committed} orders committed, {seen.rolled_back} rolled back")
                watch.until(lambda seen: not seen.pending)
                screen.line("the outbox is drained")
        return witnesses.evidence()


class _Watch:
    """Looks on, and shows what is seen."""

    def __init__(self, witnesses: Witnesses, show: Callable[[Glance], None]) -> None:
        self._witnesses = witnesses
        self._show = show

    def look(self) -> Glance:
        seen = self._witnesses.glance()
        self._show(seen)
        return seen

    def until(self, come: Callable[[Glance], bool]) -> None:
        """Look again and again until it has come; raises `Failure` when nothing has changed for long."""
        seen, since = self.look(), time.monotonic()
        while not come(seen):
            time.sleep(_LOOK_S)
            before, seen = seen, self.look()
            if seen != before:
                since = time.monotonic()
            elif time.monotonic() - since > _STUCK_S:
                raise Failure(f"nothing has happened for {_STUCK_S:g} s; run it with --keep and read {LOG} there")


def _set_up(stage: Stage, seed: int, screen: Screen) -> None:
    upgrade(stage.runtime.database.engine)
    screen.line(f"a new SQLite file, migrated by Alembic to {head()}")
    stage.emulator.fault("slow", seconds=AWAY_S)
    for number, (name, rate) in enumerate(FAULTS.items()):
        # Of its own, or all faults would strike the same requests.
        stage.emulator.fault(name, rate=rate, seed=seed + number)
    screen.line(f"an emulator of the broker, {AWAY_S * 1000:.0f} ms away, at {stage.emulator.url}")
    screen.line(f"its faults: {', '.join(f'{rate:.0%} {name}' for name, rate in FAULTS.items())}")


def _kill_a_relay(stage: Stage, shop: Shop, screen: Screen, watch: _Watch) -> None:
    with relay_process(stage) as relay:
        screen.line(f"a relay starts, process {relay.pid}")
        shop.take(RUSH)
        screen.line(f"a shop takes {RUSH} orders, an order and its message in one transaction")

        def in_mid_batch(seen: Glance) -> bool:
            if relay.poll() is not None:
                raise Failure(f"the relay ended by itself; run it with --keep and read {LOG} there")
            return seen.delivered >= RUSH / 3

        watch.until(in_mid_batch)
        relay.kill()
        relay.wait()
        screen.line(f"[bold red]SIGKILL[/] to the relay, in mid-batch: it leaves {watch.look().leased} rows leased")


def _cut_the_endpoint_off(stage: Stage, screen: Screen, watch: _Watch) -> None:
    stage.emulator.stop()
    before, back = watch.look(), time.monotonic() + OUTAGE_S
    screen.line("[bold red]the endpoint goes away[/]: connections are refused")
    while time.monotonic() < back:
        time.sleep(_LOOK_S)
        watch.look()
    stage.emulator.start()
    after = watch.look()
    meanwhile = after.committed - before.committed
    screen.line(f"the endpoint is back: {meanwhile} orders committed meanwhile, {after.pending} rows pending")
