import random
import xml.etree.ElementTree as ElementTree

import pytest

from raftckpt import limits
from raftckpt.bench.generator import Counts
from raftckpt.bench.histogram import Histogram
from raftckpt.bench.loads import ClientPlan, Load, Requests
from raftckpt.bench.plots import Series, line_plot
from raftckpt.bench.task import Task
from raftckpt.protocol.operations import Command, StageChunk
from tests.messages import check_request


def test_percentiles_are_within_two_per_cent_of_the_truth() -> None:
    dice = random.Random(1)
    values = sorted(dice.lognormvariate(-7, 2) for _ in range(20_000))
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    for per_cent in (1, 50, 90, 99, 99.9):
        true = values[int(len(values) * per_cent / 100) - 1] * 1e6
        assert histogram.percentile(per_cent) == pytest.approx(true, rel=0.02, abs=1.5)
    assert histogram.percentile(100) == int(values[-1] * 1e6)


def test_merged_histograms_count_as_one() -> None:
    one, other, both = Histogram(), Histogram(), Histogram()
    for number in range(1000):
        (one if number % 3 else other).record(number / 1e5)
        both.record(number / 1e5)
    one.merge(other.to_json())
    assert one.to_json() == both.to_json()
    assert one.count == both.count


def test_nothing_recorded_has_no_percentiles() -> None:
    assert Histogram().percentile(50) == 0


def test_the_time_line_keeps_the_worst_of_each_slot() -> None:
    counts, other = Counts(), Counts()
    counts.note(False, 10.0, 10.01, 10.0)
    counts.note(True, 10.0, 10.05, 10.0)
    other.note(False, 10.0, 10.15, 10.0)
    counts.merge(other.to_json())
    assert {slot: answers for slot, (answers, _) in counts.timeline.items()} == {0: 2, 1: 1}
    assert counts.timeline[0][1] == pytest.approx(0.05)
    assert (counts.reads.count, counts.writes.count) == (1, 2)


@pytest.mark.parametrize(
    "load",
    [
        Load(),
        Load(reads=0.5),
        Load(reads=1.0, local=True),
        Load(workload="partial", section_size=100_000, size=10),
        Load(workload="vector", elements=4),
        Load(size=5 * limits.MIB),
        Load(size=0),
        Load(checkpoints=3, sections=10, clients=4),
    ],
    ids=str,
)
def test_every_request_is_well_formed(load: Load) -> None:
    requests = Requests(ClientPlan(load, 1), list(range(1, load.checkpoints + 1)))
    made = list(requests.initial())
    assert len(made) == load.sections_of(1)
    endless = requests.endless()
    for messages in [*made[:20], *(next(endless) for _ in range(20))]:
        for number, message in enumerate(messages, 1):
            if isinstance(message, Command):
                message.session, message.sequence, message.answered = number, number, 0
            else:
                message.request = number
            assert check_request(message) is None
        assert all(type(message) is StageChunk for message in messages[:-1])


def test_the_sections_are_divided_without_remainder() -> None:
    load = Load(sections=10, clients=4)
    assert sum(load.sections_of(client) for client in range(4)) == 10


def test_a_task_survives_its_way_to_another_process() -> None:
    task = Task(Load(reads=0.25), [0, 2], ["a"], ["h:1"], ["ca", None, None], None, "n", 1.0)
    assert Task.from_json(task.to_json()) == task


@pytest.mark.parametrize("log", [False, True])
def test_a_plot_is_well_formed_and_names_its_lines(log: bool) -> None:
    lines = [Series("a & b", [(1, 10), (10, 200)]), Series("flat", [(1, 0), (10, 0)])]
    text = line_plot("title", "x", "y", lines, x_log=log, y_log=log)
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    assert len(root.findall("{*}polyline")) == 2
    assert "a &amp; b" in text


def test_a_plot_of_nothing_is_still_one() -> None:
    ElementTree.fromstring(line_plot("t", "x", "y", [Series("none", [])]))
