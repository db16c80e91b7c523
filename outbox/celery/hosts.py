"""Whose settings a Celery application follows that was given none: its Django project's, or its environment's."""

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

from outbox.settings import Settings

__all__ = ["settings_of_host"]

#: Of the environment, which every process of a Django project has, to the callable that gives the project's settings.
_HOSTS = {"DJANGO_SETTINGS_MODULE": ("outbox.django.settings", "load_or_env")}


def settings_of_host() -> Callable[[], Settings]:
    """What gives the settings.

    Django's are loaded when they are first needed: where a project's ``celery.py`` is imported they are not there yet.

    Raises:
        ConfigError: outside Django, at once: a setting in the environment is wrong.
    """
    for variable, (module, name) in _HOSTS.items():
        if os.environ.get(variable):
            return lambda: _called(module, name)
    settings = Settings.from_env()
    return lambda: settings


def _called(module: str, name: str) -> Settings:
    # By name and late, as a framework is known to its own adapter alone.
    load: Callable[[], Any] = getattr(import_module(module), name)
    settings: Settings = load()
    return settings
