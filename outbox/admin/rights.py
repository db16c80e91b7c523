"""Who may do what on the pages: the rights that there are, and which of them each act needs."""

__all__ = ["RIGHTS", "needed"]

#: ``view``: see messages without their bodies; ``view_body``: bodies, each look being audited; ``replay``;
#: ``discard``; ``force``: also where it may publish twice or forget; ``pause``: pause and resume lanes.
RIGHTS = ("view", "view_body", "replay", "discard", "force", "pause")


def needed(act: str, *, force: bool = False) -> tuple[str, ...]:
    """The rights that an act needs, all of them.

    Args:
        act: one of `RIGHTS` but ``force``, or ``resume``.
        force: whether a replay or a discard is forced.
    """
    right = "pause" if act == "resume" else act
    return ("view", right, "force") if force else ("view", right)
