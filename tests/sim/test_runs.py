"""Sets of runs and campaigns: what is done is not done again, what failed is said."""

from __future__ import annotations

import json
from pathlib import Path

from tests.sim.campaign import code_revision, lines_of, report, run_campaign
from tests.sim.runs import ENOUGH_SEEDS, SOMETIMES, WORLDS, Job, Totals, perform


def jobs(*seeds: int, sabotage: str = "") -> list[Job]:
    return [Job("consensus", seed, 1.0, sabotage) for seed in seeds]


def test_campaign_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    run_campaign(file, jobs(1, 2), 1, 10.0)
    whole = file.read_text()
    file.write_text(whole[:-40])  # killed in the middle of a line
    run_campaign(file, jobs(1, 2, 3), 1, 10.0)
    lines = list(lines_of(file))
    assert [line["seed"] for line in lines] == [1, 2, 3]
    first = json.loads(whole.splitlines()[0])
    assert {k: v for k, v in lines[0].items() if k != "cpu_s"} == {
        k: v for k, v in first.items() if k != "cpu_s"
    }
    totals = report(file)
    assert totals.seeds["consensus"] == 3
    assert totals.virtual_s == sum(line["virtual_s"] for line in lines)
    assert not totals.failures
    assert report(file, revision=code_revision()).seeds == totals.seeds
    assert not report(file, revision="another").seeds


def test_a_failure_is_reported_with_the_command_that_replays_it() -> None:
    totals = Totals()
    for job in jobs(1, sabotage="no fsync (H1)"):
        totals.add_run(perform(job))
    ((job, violation),) = totals.failures
    assert "durable" in violation
    assert job.replay.startswith("python -m tests.sim --replay 1 --world consensus --seconds 1")
    assert "1 failed" in next(totals.lines())


def test_a_set_that_never_reached_a_rare_state_says_so() -> None:
    totals = Totals()
    for seed in range(ENOUGH_SEEDS):
        counters = dict.fromkeys(SOMETIMES["service"], 1) | {"wipes": 0}
        totals.add(Job("service", seed, 1.0), None, 1.0, 0.1, counters, {"step.begin": 1})
    assert totals.never() == ["service: wipes"]
    assert "step.begin" not in totals.not_crashed_at()
    assert "step.finish" in totals.not_crashed_at()


def test_every_rare_state_is_one_that_a_world_counts() -> None:
    assert set(SOMETIMES) == set(WORLDS)
