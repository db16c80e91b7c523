"""A Celery application made from the environment: ``celery -A outbox.celery worker -B``.

It can be imported without any setting; they are looked at when Celery first needs its configuration.
"""

from functools import cache
from typing import Any

from celery import Celery, signals
from kombu.exceptions import OperationalError

from outbox.celery.installation import QUEUE, install_with
from outbox.celery.logs import show_fields
from outbox.celery.stopping import end_with_parent
from outbox.errors import ConfigError
from outbox.settings import NotConfiguredError, Settings

__all__ = ["app", "check_broker", "use"]

_PATIENCE_S = 3


_given: list[Settings] = []


def use(settings: Settings) -> None:
    """Follow these settings instead of the environment's; it must come before Celery first needs them."""
    _given.append(settings)


def check_broker() -> None:
    """Say now, in one line, what Celery would say in a traceback. A broker that does not answer yet Celery waits for.

    Raises:
        ConfigError: there is no such broker for Celery, or it refuses user, password or virtual host.
    """
    try:
        with app.connection_for_write(connect_timeout=_PATIENCE_S) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
    except OperationalError:
        return
    except ImportError as error:
        problem = f"{error}; for Redis: pip install 'rocketmq-outbox[redis]'"
    except (KeyError, ValueError):
        # Their texts may hold a part of the password.
        problem = "no URL that Celery knows; give one such as redis://host:6379/0"
    except Exception as error:  # noqa: BLE001 - each kind of broker has errors of its own
        problem = f"the broker refuses it ({type(error).__name__}); check user, password and virtual host"
    else:
        return
    raise ConfigError("OUTBOX_BROKER_URL", problem)


@cache
def _settings() -> Settings:
    try:
        settings = _given[-1] if _given else Settings.from_env()
        settings.require("broker_url")
    except ConfigError as error:
        raise NotConfiguredError(error) from None
    return settings


def _configuration() -> dict[str, Any]:
    return {
        "broker_url": _settings().require("broker_url"),
        "broker_connection_retry_on_startup": True,
        "accept_content": ["json"],
        "task_ignore_result": True,
        "task_default_queue": QUEUE,
        "worker_prefetch_multiplier": 1,
        # Both entries are intervals and need no memory: without one, no file is left in the working directory.
        "beat_scheduler": "celery.beat:Scheduler",
        # Nor is there any result for beat to clean up.
        "result_expires": None,
    }


# Processes that are spawned instead of forked, as on macOS, find the tasks by importing this module.
app = Celery("outbox", include=[__name__], set_as_current=False)
app.add_defaults(_configuration)
install_with(app, _settings)
signals.after_setup_logger.connect(show_fields)
signals.beat_embedded_init.connect(end_with_parent)
