"""The schema, and how it is filled and asked."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from outbox.errors import ConfigError
from outbox.settings.credentials import Provider, provided
from outbox.settings.destination import Destination
from outbox.settings.problems import Place, config_error, unknown, wrong
from outbox.settings.values import (
    NAME,
    BrokerUrl,
    Endpoint,
    KeyId,
    Secret,
    Topic,
    Unreserved,
    from_json,
    topics,
    usable_endpoint,
)

__all__ = ["Settings"]

log = logging.getLogger("outbox")

_FILE = "_file"
_KEYS = ("access_key_id", "access_key_secret", "security_token")


def _file_field() -> Any:
    return Field(None, description="the path of a file that holds it")


class _Access(BaseModel):
    """What can be said of one destination. Each description ends the sentence that begins with "give"."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    endpoint: Endpoint | None = Field(
        None, description="the console's HTTP endpoint, https://<account>.mqrest.<region>.aliyuncs.com"
    )
    instance_id: Unreserved = Field("", description="the instance's id, at most 64 of A-Z a-z 0-9 . _ ~ -")
    group_id: Unreserved = Field("", description="the group's id, at most 64 of A-Z a-z 0-9 . _ ~ -")
    access_key_id: KeyId | None = Field(None, description="the AccessKey's id")
    access_key_id_file: Path | None = _file_field()
    access_key_secret: Secret | None = Field(None, description="the AccessKey's secret")
    access_key_secret_file: Path | None = _file_field()
    security_token: Secret | None = Field(None, description="the token of temporary (STS) keys")
    security_token_file: Path | None = _file_field()
    credentials: Provider | None = Field(None, description="a callable that gives the keys, as module:name")

    @model_validator(mode="before")
    @classmethod
    def _without_blanks(cls, given: Any) -> Any:
        """An empty value is none at all: environments are made from templates that hold ``OUTBOX_GROUP_ID=``."""
        if not isinstance(given, dict):
            return given
        return {key: value for key, value in given.items() if value is not None and value != ""}

    @field_validator("*")
    @classmethod
    def _not_beside_its_file(cls, value: Any, info: ValidationInfo) -> Any:
        stem = str(info.field_name).removesuffix(_FILE)
        if value is not None and stem != info.field_name and info.data.get(stem) is not None:
            raise ValueError("is set beside the same key without _FILE; give only one of them")
        return value

    @field_validator("credentials")
    @classmethod
    def _not_beside_keys(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and any(info.data.get(name) or info.data.get(name + _FILE) for name in _KEYS):
            raise ValueError("is set beside keys; give either them or what gives them")
        return value


class Settings(_Access, BaseSettings):
    """Every setting, named as in the environment but in lower case and without ``OUTBOX_``; immutable.

    What `_Access` brings describes the destination ``default``. Secrets are ``SecretStr``, and so are the URLs of the
    database and the broker, which may hold a password: `require` and `destination` give them plain, from their files.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    # Checked where the engine is made, which also knows whether the driver is installed.
    database_url: SecretStr | None = Field(
        None, description="an SQLAlchemy URL such as postgresql+psycopg://user:password@host/name"
    )
    database_url_file: Path | None = _file_field()
    table_schema: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_$-]{1,63}$", description="a schema's name, 1 to 63 of A-Z a-z 0-9 _ $ -"
    )
    broker_url: BrokerUrl | None = Field(None, description="Celery's broker, such as redis://host:6379/0")
    broker_url_file: Path | None = _file_field()
    destinations: Annotated[dict[str, _Access], BeforeValidator(from_json)] = Field(
        {}, description='a JSON object such as {"billing": {"endpoint": "https://…", "access_key_id": "…"}}'
    )
    allow_http: bool = Field(False, description="true or false")
    environment: str = Field(
        "default", pattern=r"^[A-Za-z0-9._-]{1,64}$", description="a name, 1 to 64 of A-Z a-z 0-9 . _ -"
    )
    batch_size: int = Field(500, ge=1, le=10_000, description="a whole number from 1 to 10000")
    concurrency: int = Field(16, ge=1, le=256, description="a whole number from 1 to 256")
    lease_s: float = Field(60, ge=3, le=86_400, description="seconds from 3 to 86400")
    request_timeout_s: float = Field(10, gt=0, le=300, description="seconds above 0, at most 300")
    max_attempts: int = Field(10, ge=1, le=1000, description="a whole number from 1 to 1000")
    backoff_base_s: float = Field(1, ge=0, le=86_400, description="seconds from 0 to 86400")
    backoff_max_s: float = Field(300, ge=0, le=604_800, description="seconds from 0 to 604800")
    http_engine: Literal["auto", "requests", "curl"] = Field("auto", description="auto, requests or curl")
    sweep_s: float = Field(5, ge=0.1, le=3600, description="seconds from 0.1 to 3600")
    retention_s: float = Field(604_800, ge=0, le=1e9, description="seconds from 0 to a billion")
    nudge: bool = Field(True, description="true or false")
    # The broker refuses a message that is scheduled more than 40 days ahead.
    deliver_horizon_s: float = Field(3_452_400, ge=0, le=3_456_000, description="seconds from 0 to 3456000")
    skip_failed_heads: Annotated[frozenset[Topic], BeforeValidator(topics)] = Field(
        frozenset(), description='topics, as orders,invoices or as ["orders", "invoices"]'
    )
    keep_sent: bool = Field(True, description="true or false")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the base class's signature
        init_settings: PydanticBaseSettingsSource,
        *_: PydanticBaseSettingsSource,
        **__: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The constructor takes what it is given; only `from_env` looks at the environment."""
        return (init_settings,)

    @field_validator("destinations")
    @classmethod
    def _have_names(cls, value: dict[str, _Access]) -> dict[str, _Access]:
        if not all(NAME.fullmatch(name) for name in value):
            raise ValueError("has a name other than 1 to 64 of A-Z a-z 0-9 _ -; give one that messages can name")
        if "default" in value:
            raise ValueError("describes default, as OUTBOX_ENDPOINT and the keys beside it do; give another name")
        return value

    @field_validator("backoff_max_s")
    @classmethod
    def _not_below_base(cls, value: float, info: ValidationInfo) -> float:
        if value < info.data.get("backoff_base_s", 0):
            raise ValueError("is less than OUTBOX_BACKOFF_BASE_S; give as much or more")
        return value

    # --- where they come from

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Settings from ``OUTBOX_…`` in the process's environment, or in ``environ``: see `from_mapping`."""
        return cls.from_mapping(os.environ if environ is None else environ)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], *, prefix: str = "OUTBOX_") -> Self:
        """Settings from those keys of a mapping that begin with ``prefix``.

        Args:
            mapping: an environment, a Flask config, or Django's ``settings.OUTBOX`` with ``prefix=""``. Numbers,
                booleans, lists and dicts may stand as such or as text; None and an empty text are no value.
            prefix: what begins the keys that are ours. Without one they all are, and what is no setting is an error.
                With one, such a key is logged as ``outbox.unknown_setting`` and no more: a container platform makes
                ``OUTBOX_PORT`` of a service named ``outbox``. ``OUTBOX_TEST_…`` is for tests, and left alone.

        Raises:
            ConfigError: a value is wrong, or a key without a prefix is unknown.
        """
        known = {name.upper(): name for name in cls.model_fields}
        given = {}
        for spelled, value in mapping.items():
            key = str(spelled).removeprefix(prefix)
            if key in known and str(spelled).startswith(prefix):
                given[known[key]] = value
            elif not prefix:
                raise ConfigError(f"OUTBOX_{key}", unknown(key, known))
            elif str(spelled).startswith(prefix) and not key.startswith("TEST_"):
                log.warning("outbox.unknown_setting", extra={"key": spelled, "problem": unknown(key, known, prefix)})
        return _validated(cls, given)

    # --- what they say

    @property
    def request_deadline_s(self) -> float:
        """Seconds that a whole POST or DELETE may take: the timeout, but no more than a third of the lease."""
        return min(self.request_timeout_s, self.lease_s / 3)

    def optional(self, name: str) -> str | None:
        """The plain value of a setting, a secret's too, as its file holds it now; None where none is given.

        Raises:
            ConfigError: the file cannot be read, or holds no such value.
        """
        return _plain(self, (), name)

    def require(self, name: str) -> str:
        """As `optional`, for a setting that the caller cannot do without: ``settings.require("database_url")``.

        Raises:
            ConfigError: it is missing, or its file cannot be read or holds no such value.
        """
        return _present(self.optional(name), (name,))

    def destination_names(self) -> tuple[str, ...]:
        """The destinations that the settings describe; ``default`` where they describe none."""
        describe_default = any(getattr(self, name) for name in _Access.model_fields)
        return (*(["default"] if describe_default or not self.destinations else []), *self.destinations)

    def destination(self, name: str = "default") -> Destination:
        """All that a request to a destination needs, with the keys that their files hold or their callable gives now.

        Raises:
            ConfigError: there is no such destination, or something of it is missing or cannot be read, or its endpoint
                may not be used: see `outbox.endpoint.checked_endpoint`.
        """
        given, place = (self, ()) if name == "default" else (self.destinations.get(name), ("destinations", name))
        if given is None:
            raise ConfigError("OUTBOX_DESTINATIONS", f"has no {name[:64]!r}; add it, or use another destination")
        values = {field: _plain(given, place, field) for field in ("endpoint", "instance_id", "group_id", *_KEYS)}
        if given.credentials is not None:
            values |= provided(given.credentials, (*place, "credentials"))
        endpoint = _present(values["endpoint"], (*place, "endpoint"))
        sts = bool(values["security_token"])
        try:
            values["endpoint"] = usable_endpoint(endpoint, allow_http=self.allow_http, sts=sts)
        except ValueError as error:
            raise config_error((*place, "endpoint"), str(error)) from None
        for field in ("access_key_id", "access_key_secret"):
            _present(values[field], (*place, field))
        return Destination.model_validate({"name": name} | {key: value for key, value in values.items() if value})


def _plain(given: _Access, place: Place, name: str) -> str | None:
    value, path = getattr(given, name), getattr(given, name + _FILE, None)
    if path is not None:
        value = getattr(_validated(type(given), {name: _read(path, (*place, name + _FILE))}, place), name)
    return value.get_secret_value() if isinstance(value, SecretStr) else value or None


def _read(path: Path, place: Place) -> str:
    try:
        held = path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise config_error(place, f"cannot be read: {error.strerror}; give the path of a file that can") from None
    except ValueError:
        raise config_error(place, "names a file that is not UTF-8; give the path of one that is") from None
    if not held:
        raise config_error(place, "names a file without text; give the path of one that holds it")
    return held


_Schema = TypeVar("_Schema", bound=_Access)


def _validated(schema: type[_Schema], given: dict[str, Any], place: Place = ()) -> _Schema:
    try:
        return schema(**given)
    except ValidationError as error:
        details = error.errors(include_url=False)[0]
    # Outside of the handler, so that the traceback does not show pydantic's error either.
    where = (*place, *map(str, details["loc"]))
    if details["type"] == "extra_forbidden":
        raise config_error(where, unknown(where[-1], _Access.model_fields))
    may_be_secret = where[0] == "destinations" or where[0] + _FILE in Settings.model_fields
    raise config_error(where, wrong(details, _description(where), may_be_secret=may_be_secret))


def _present(value: str | None, place: Place) -> str:
    if value is None:
        raise config_error(place, f"missing; give {_description(place)}")
    return value


def _description(place: Place) -> str:
    nested = place[0] == "destinations" and len(place) > 2  # noqa: PLR2004 - destinations, its name, its field
    field = _Access.model_fields[place[2]] if nested else Settings.model_fields[place[0]]
    return str(field.description)
