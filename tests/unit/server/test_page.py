"""The page: what it says, that nothing of others speaks on it, what it costs."""

from __future__ import annotations

import re
from functools import partial
from html.parser import HTMLParser
from math import nan

import pytest

from raftckpt.node.chronicle import Happening
from raftckpt.server import page
from raftckpt.server.charts import Curve, Upright, chart
from raftckpt.server.metrics import exposition
from tests.unit.node.fakes import EPOCH_NS, LoneReplica
from tests.unit.server.costs import calls_of, with_checkpoints
from tests.unit.server.test_metrics import sources

HOSTILE = '<script>alert(1)</script> & "more"\u202e'


class Shown(HTMLParser):
    """Tags, and texts by section."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text: dict[str, str] = {}
        self._section = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not any(name.startswith("on") or name == "style" for name, _ in attrs)
        if tag not in ("meta", "link", "br", "wbr"):
            self.open.append(tag)
        if tag == "section":
            self._section = dict(attrs)["id"] or ""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text[self._section] = self.text.get(self._section, "") + data


def seen(of, make=page.page) -> Shown:
    return Shown(make(of).decode())


def test_an_empty_cluster_says_what_to_do() -> None:
    of = sources(LoneReplica())
    told = seen(of)
    assert told.open == []
    assert "raftckpt checkpoint create" in told.text["checkpoints"]
    assert "No component has joined" in told.text["groups"]
    assert "No alarms." in told.text["alarms"]
    assert "n1 leads" in told.text["head"]
    assert "nothing yet" in told.text["charts"]


def test_parts_are_those_of_the_page() -> None:
    of = sources(LoneReplica())
    whole, parts = seen(of), Shown(page.parts(of).decode())
    assert whole.text.keys() - {""} == {*parts.text, "charts"} - {""}
    assert Shown(page.charts(of).decode()).text["charts"] == whole.text["charts"]


def test_nothing_of_others_speaks_on_it() -> None:
    world = LoneReplica()
    of = sources(world, [HOSTILE])
    client = world.open_session()
    world.put(client, world.open_checkpoint(client), 2)
    world.log.step()
    world.replica.machine.checkpoints[1].name = HOSTILE
    for kind in ("leader", "failover", "link", "alarm", "members", "other"):
        keys = ("leader", "group", "active", "node", "previous", "reason", "text", "members")
        of.recorder.chronicle.happenings.append(
            Happening(0, kind, {"term": 1, "epoch": 1, "up": True, "raised": True}
                      | dict.fromkeys(keys, HOSTILE))
        )  # fmt: skip
    text = page.page(of).decode()
    told = Shown(text)
    assert text.count("<script") == 1  # ours, by its address
    assert HOSTILE.replace("\u202e", "\\u202e") in told.text["alarms"]
    assert "<script>alert(1)" in told.text["checkpoints"]
    assert "\u202e" not in text
    assert {"img", "iframe", "form"} & told.tags == set()
    assert not re.search(r"https?:", text)


def test_checkpoints_with_who_has_them_open() -> None:
    world = LoneReplica()
    of = sources(world)
    for number in range(9):
        client = world.open_session(secret=bytes([number]) * 16)
        handle = world.open_checkpoint(client)
        world.put(client, handle, 2, b"k%d" % number, bytes(1000))
    world.log.step()
    told = seen(of).text["checkpoints"]
    assert "ckpt" in told
    assert "3 more" in told
    assert "8.79 KiB" in told


def test_no_leader_and_alarms_are_seen_in_the_title() -> None:
    lost = LoneReplica(lead=False)
    of = sources(lost, ["fire", "flood"])
    text = page.page(of).decode()
    assert "<title>(2) n1 · no leader</title>" in text
    assert "nobody is known to lead" in Shown(text).text["head"]


def test_the_timeline_tells_how_long_nobody_led() -> None:
    of = sources(LoneReplica())
    chronicle = of.recorder.chronicle
    chronicle.led(EPOCH_NS, 4, None)
    chronicle.led(EPOCH_NS + 52_000_000, 5, "n3")
    assert "n3 leads, term 5 after 52 ms without a leader" in seen(of).text["timeline"]


@pytest.mark.parametrize("make", [page.page, page.parts, page.charts, exposition])
def test_it_costs_the_same_with_a_hundred_thousand_checkpoints(make) -> None:
    world = LoneReplica()
    of = sources(world)
    for number in range(3600):  # an hour to be drawn
        world.clock.pass_by(1.0)
        of.recorder.look(world.log.status(), EPOCH_NS + number)
    counted = []
    for count in (1000, 100_000):
        with_checkpoints(world.replica.machine, count)
        for number in range(count // 500 + 2):
            world.clock.pass_by(1.0)
            of.recorder.look(world.log.status(), EPOCH_NS + number)
        make(of)
        counted.append(calls_of(partial(make, of)))
    assert counted[1] <= counted[0] + 100
    assert counted[1] < 20_000  # of about 0.1 microseconds each: below five milliseconds


def test_charts_have_scales_gaps_and_marks() -> None:
    picture = chart(
        [10.0, 20.0, 30.0, 40.0],
        [Curve("a", [1.0, nan, 3.0, 7.0])],
        since=0.0, now=50.0, unit=lambda value: f"{value:g} x", marks=[Upright(25.0, "n2 leads")],
        label="speed",
    )  # fmt: skip
    assert picture.count("<polyline") == 2  # a point alone, and a line
    assert [f">{value} x<" in picture for value in (0, 2, 4, 6, 8)] == [True] * 5
    assert "<title>n2 leads</title>" in picture
    flat = chart([], [], since=0.0, now=60.0, unit=str, label="nothing")
    assert "1 min ago" in flat
