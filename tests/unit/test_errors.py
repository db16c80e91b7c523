"""The errors that users see."""

import pickle

import pytest

from outbox import errors


@pytest.mark.parametrize(("kind", "attribute"), [(errors.MessageError, "field"), (errors.ConfigError, "key")])
def test_error_names_what_is_wrong_and_survives_pickling(kind, attribute):
    """One line that begins with the name; a pool's process can send it to another."""
    error = pickle.loads(pickle.dumps(kind("tag", "got 70 characters")))

    assert "tag: got 70 characters" == str(error)
    assert "tag" == getattr(error, attribute)


def test_every_error_is_in_the_drawing():
    """The tree in the module's docstring names each class, and every class is an OutboxError."""
    kinds = [getattr(errors, name) for name in errors.__all__]

    assert all(issubclass(kind, errors.OutboxError) for kind in kinds)
    assert [name for name in errors.__all__ if name not in (errors.__doc__ or "")] == []
