"""Builds what a process needs from its settings: the database, the HTTP clients, the relay."""

from collections.abc import Callable, Mapping
from functools import cached_property, partial

from outbox.clock import SYSTEM, Clock
from outbox.half import CheckConfig, Checker
from outbox.relay import Counts, Drained, Relay, Swept
from outbox.relay.pipeline import RelayConfig
from outbox.retry import Policy
from outbox.rocketmq.client import Client
from outbox.rocketmq.credentials import Keyring
from outbox.rocketmq.engines import Engine, engine_named
from outbox.rocketmq.loops import KeptLoops
from outbox.settings import Settings
from outbox.store import origin, topics
from outbox.store.database import Database
from outbox.store.engine import create_engine
from outbox.store.lanes import Lane, left_to_do
from outbox.store.topics import Topic

__all__ = ["Runtime"]

# Beside the claimer and the marker, a few publishers at a time may read large bodies.
_ENGINE_CONNECTIONS = 8


class Runtime:
    """The long-lived objects of one process. Nothing is opened before it is used.

    Args:
        settings: each part checks the settings that it needs, when it is first used.
        clock: time and threads for what is built.
    """

    def __init__(self, settings: Settings, clock: Clock = SYSTEM) -> None:
        self.settings = settings
        self.clock = clock
        self._origins: dict[str, str] = {}
        self._half_lanes: dict[Lane, str] = {}

    @cached_property
    def database(self) -> Database:
        """The outbox's database. Raises `ConfigError` without ``OUTBOX_DATABASE_URL``."""
        settings = self.settings
        url = settings.require("database_url")
        engine = create_engine(url, schema=settings.table_schema, pool_size=_ENGINE_CONNECTIONS)
        return Database(engine, sleep=self.clock.sleep)

    @cached_property
    def http_engine(self) -> Engine:
        """What sends requests. Raises `ConfigError` where it is asked for and not installed."""
        return engine_named(self.settings.http_engine)

    @cached_property
    def _loops(self) -> KeptLoops | None:
        make = self.http_engine.loop_maker
        return KeptLoops(make) if make else None

    @cached_property
    def publishers(self) -> Mapping[str, Client]:
        """An HTTP client for each destination. Raises `ConfigError` where one is missing or wrong."""
        return {name: self._client(name) for name in self.settings.destination_names()}

    def relay(self, on_progress: Callable[[Counts], None] = lambda _counts: None) -> Relay:
        """A relay over all lanes, to be run once."""
        settings = self.settings
        config = RelayConfig(
            batch_size=settings.batch_size,
            concurrency=settings.concurrency,
            lease_s=settings.lease_s,
            request_deadline_s=settings.request_deadline_s,
            policy=Policy(settings.max_attempts, settings.backoff_base_s, settings.backoff_max_s),
            skip_failed_heads=settings.skip_failed_heads,
            keep_sent=settings.keep_sent,
        )
        return Relay(
            self.database,
            self.publishers,
            config,
            self.clock,
            on_progress,
            origin=self.half_lane,
            loops=self._loops,
        )

    def checker(self, config: CheckConfig | None = None) -> Checker:
        """A checker over all topics that half messages were posted to."""
        config = config or CheckConfig(request_deadline_s=self.settings.request_deadline_s)
        return Checker(self.database, self.publishers, self.origin, config, self.clock)

    def origin(self, destination: str) -> str:
        """The database's origin, bound to the destination. Raises `ConfigError`, see `outbox.store.origin.bind`."""
        settings = self.settings
        if destination not in self._origins:
            given = settings.destination(destination)
            self._origins[destination] = origin.bind(self.database, settings.environment, given)
        return self._origins[destination]

    def half_lane(self, lane: Lane) -> str:
        """The origin for the half messages of a lane, which are checked from then on.

        Raises:
            ConfigError: see `outbox.store.origin.bind`.
            DatabaseError: see `Database.run`.
        """
        known = self._half_lanes.get(lane)
        if known is None:
            known = self.origin(lane.destination)
            group_id = self.settings.destination(lane.destination).group_id
            topics.register(self.database, Topic(lane.destination, lane.topic, group_id))
            self._half_lanes[lane] = known
        return known

    def drained(self, timeout_s: float) -> Drained:
        """The ending of a drain."""
        return Drained(self.clock, self._left_to_do, timeout_s)

    def swept(self, longest_s: float, *, nudged: bool) -> Swept:
        """The ending of a sweep."""
        return Swept(self.clock, self._left_to_do, longest_s, nudged=nudged)

    def close(self) -> None:
        """Close the connections that there are; the next use opens new ones."""
        if "database" in vars(self):
            self.database.engine.dispose()
        if "_loops" in vars(self) and self._loops is not None:
            self._loops.close()

    def _left_to_do(self) -> bool:
        return left_to_do(self.database, self.settings.skip_failed_heads)

    def _client(self, name: str) -> Client:
        keyring = Keyring(partial(self.settings.destination, name))
        transport = self.http_engine.transport(keyring.endpoint, pool_size=self.settings.concurrency)
        return Client(keyring, transport, self.clock.wall, self.clock.monotonic)
