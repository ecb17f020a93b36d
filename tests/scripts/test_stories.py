"""Every ``*.txt`` beside this file is a story: lines to play, and below each what is to be seen.

What is seen is indented, comments begin with ``#``. ``pytest tests/scripts --rewrite`` writes what
was seen into the stories; look at the difference.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scripts.stage import StoryStage, new_world

STORIES = sorted(Path(__file__).parent.glob("*.txt"))


def play(text: str) -> str:
    """Return the story with the output that is seen."""
    written = []
    world = new_world()
    with world.scripted():
        stage = StoryStage(world)
        for line in text.splitlines():
            if line.startswith(" "):
                continue  # what was seen when it was written
            written.append(line)
            if line and not line.startswith("#"):
                written += [f"  {seen}" for seen in stage.play(line).splitlines()]
    return "\n".join(written) + "\n"


@pytest.mark.parametrize("path", STORIES, ids=[path.stem for path in STORIES])
def test_story(path: Path, request: pytest.FixtureRequest) -> None:
    text = path.read_text("utf-8")
    seen = play(text)
    if request.config.getoption("--rewrite"):
        path.write_text(seen, "utf-8")
    else:
        assert seen == text


def test_there_are_stories() -> None:
    assert len(STORIES) >= 7


def test_a_story_that_goes_otherwise_is_noticed() -> None:
    story = "client a\n  a session begins\na create c\n  created\na put c k v\n  revision 99\n"
    assert "  revision 2\n" in play(story)
    assert play(story) != story
    assert play(play(story)) == play(story)
