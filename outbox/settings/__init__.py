"""Settings, one schema for every way of giving them: the environment, a Flask config, Django's ``settings.OUTBOX``.

Whatever is wrong stops the process that loads it, with one line that names the key and never repeats the value. What is
missing stops only the command that needs it. A secret in a file of its own (``…_FILE``) is read when it is needed and
every time it is: a process that has no use for it runs without the file, and a rotated key is picked up.
"""

from outbox.settings.destination import Destination
from outbox.settings.problems import NotConfiguredError
from outbox.settings.schema import Settings

__all__ = ["Destination", "NotConfiguredError", "Settings"]
