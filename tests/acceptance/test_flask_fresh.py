"""A fresh Flask application follows the README."""

import sys

from tests.acceptance.fresh_flask import README, after, diff, tell


def test_fresh_app_delivers_its_first_message(tmp_path, capsys):
    """The README's edits, five at most, and its commands lead to a delivered message within a minute."""
    story = tell(tmp_path)
    with capsys.disabled():
        sys.stdout.write(f" [{story}] ")

    assert 1 <= len(story.edits) <= 5
    assert ['{"id":1,"item":"a book"}'] == story.delivered
    assert story.seconds < 60


def test_fresh_app_is_the_example():
    """With the edits in, the application is the example's file."""
    assert after(diff()) == (README.parent / "examples/flask_minimal/app.py").read_text()
