"""A fresh Django project follows the README."""

import sys

from tests.acceptance.fresh_django import tell


def test_fresh_project_delivers_its_first_message(tmp_path, capsys):
    """The README's edits, five at most, and its commands lead to a delivered message within a minute."""
    story = tell(tmp_path)
    with capsys.disabled():
        sys.stdout.write(f" [{story}] ")

    assert 1 <= len(story.edits) <= 5
    assert ['{"id":1,"name":"ann"}'] == story.delivered
    assert "no issues" in story.checked
    assert story.seconds < 60
