"""Keys from a callable of the application's, such as one that asks a cloud's token service for temporary ones."""

from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationError

from outbox.settings.destination import Keys
from outbox.settings.problems import Place, config_error

__all__ = ["Provider", "provided"]


def _callable(value: object) -> object:
    is_named = isinstance(value, str) and all(part.isidentifier() for part in value.replace(":", ".", 1).split("."))
    if not callable(value) and not (is_named and ":" in str(value)):
        raise ValueError("is no callable; give it as module:name, such as shop.keys:provide")
    return value


#: A callable, or where to import it from; it is imported when keys are first needed.
Provider = Annotated[Any, AfterValidator(_callable)]


def provided(provider: str | Callable[[], Any], place: Place) -> dict[str, Any]:
    """Ask for keys.

    Args:
        provider: the setting's value.
        place: of the setting, for errors.

    Returns:
        The fields of `Keys` that it gives.

    Raises:
        ConfigError: it cannot be imported, or raises, or gives something else than keys. Never repeats what it said.
    """
    try:
        given = _imported(provider)() if isinstance(provider, str) else provider()
        return Keys.model_validate(given).model_dump(exclude_none=True)
    except ValidationError as error:
        wrong = ", ".join(sorted({str(one["loc"][0]) for one in error.errors() if one["loc"]})) or "what it gives"
        problem = f"gives no usable keys: {wrong}"
    except Exception as error:  # noqa: BLE001 - it is the application's code
        problem = f"failed with {type(error).__name__}"
    # Outside of the handler: what was raised there may show a secret.
    raise config_error(place, f"{problem}; give a callable that returns access_key_id, access_key_secret and so on")


def _imported(provider: str) -> Callable[[], Any]:
    module, _, name = provider.partition(":")
    found: Any = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found  # type: ignore[no-any-return]  # whatever the application put there
