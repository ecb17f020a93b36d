"""The registry of metrics, what is made from it, and what a scrape costs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from raftckpt.limits import PENDING_COMMANDS_MAX
from raftckpt.node.config import parse
from raftckpt.node.health import Health
from raftckpt.node.meters import Buckets
from raftckpt.server.lasthour import LastHour
from raftckpt.server.listener import ClientListener
from raftckpt.server.metrics import METRICS, MetricKind, Sources, exposition, readiness
from raftckpt.server.status import ReplicaInfo
from tests.unit.node.fakes import ENDPOINTS, LoneReplica
from tests.unit.server.costs import calls_of
from tools import metrics_doc

ROOT = Path(__file__).parents[3]
SAMPLES = {name for metric in METRICS for name in metric.samples()}
CONFIG = "cluster: demo\nreplicas: {n1: {client: '127.0.0.1:1', peer: '127.0.0.1:2'}}\n"


def sources(world: LoneReplica, alarms: list[str] | None = None) -> Sources:
    info = ReplicaInfo(
        "n1", 'a "quoted" one', "f1", "d1", ENDPOINTS, "fsync", 0.0, lambda: 17, lambda: 3
    )
    listener = ClientListener(world.replica, info, world.clock)
    health = Health(parse(CONFIG), "n1")
    told = {"state": lambda: alarms or []}
    recorder = LastHour(world.replica, listener.tracking.history, lambda: alarms or [])
    return Sources(
        world.replica, listener, info, health, lambda: False, told, lambda: "ok", recorder
    )


def values(text: bytes) -> dict[str, float]:
    rows = [line.rpartition(" ") for line in text.decode().splitlines() if line[0] != "#"]
    return {name: float(value) for name, _, value in rows}


def test_every_metric_is_well_named_and_told_once() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert re.fullmatch(r"[a-z][a-z_]*[a-z]", metric.name)
        assert not metric.unit or metric.name.endswith("_" + metric.unit)
        assert not metric.name.endswith(("_total", "_info", "_count", "_sum", "_bucket"))
        assert metric.help.endswith(".")
        assert "\n" not in metric.help


def test_the_page_is_made_from_the_registry() -> None:
    text = metrics_doc.DOCUMENT.read_text("utf-8")
    assert metrics_doc.rewritten(text) == text
    assert all(f"`{name}`" in text for name in SAMPLES)


@pytest.mark.parametrize("file", ["alerts.yaml", "grafana-dashboard.json"])
def test_alerts_and_dashboard_name_nothing_that_is_not_there(file) -> None:
    text = (ROOT / "operate" / file).read_text("utf-8")
    named = set(re.findall(r"\braftckpt_\w+", text))
    assert named
    assert named - SAMPLES == set()
    labels = {metric.label for metric in METRICS} | {"le", "job", "instance", "version"}
    for group in re.findall(r"raftckpt_\w+\{([^}]*)\}", text.replace('\\"', '"')):
        assert set(re.findall(r"(\w+)=", group)) <= labels
    if file.endswith(".json"):
        panels = json.loads(text)["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
    else:
        for rule in yaml.safe_load(text)["groups"][0]["rules"]:
            assert {"summary", "do"} <= set(rule["annotations"])
            assert rule["expr"].count("(") == rule["expr"].count(")")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not here")
def test_prometheus_takes_the_alert_rules() -> None:
    file = ROOT / "operate" / "alerts.yaml"
    checked = subprocess.run(
        ["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_scraper_reads_it() -> None:
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    world = LoneReplica()
    client = world.open_session()
    world.put(client, world.open_checkpoint(client), 2)
    world.log.step()
    families = list(parser.text_string_to_metric_families(exposition(sources(world)).decode()))
    found = {family.name: family for family in families}
    # nobody read the state yet; no loop turns here
    absent = {f"raftckpt_{name}" for name in ("copy_age_seconds", "turn_cpu_seconds", "long_turns")}
    assert {f"raftckpt_{metric.name}" for metric in METRICS} - set(found) == absent
    for metric in METRICS:
        if f"raftckpt_{metric.name}" in found:
            assert found[f"raftckpt_{metric.name}"].type == metric.kind.value
            samples = {sample.name for sample in found[f"raftckpt_{metric.name}"].samples}
            assert samples <= set(metric.samples())
    (build,) = found["raftckpt_build"].samples
    assert build.labels["cluster"] == 'a "quoted" one'


def test_what_is_told_is_so() -> None:
    world = LoneReplica()
    of = sources(world, ["fire", "flood"])
    client = world.open_session()
    handle = world.open_checkpoint(client)
    world.put(client, handle, 2)
    world.log.step()
    told = values(exposition(of))
    assert told["raftckpt_sessions"] == told["raftckpt_checkpoints"] == 1
    assert told["raftckpt_commands_total"] == 3
    assert told["raftckpt_batch_commands_sum"] == 3
    assert told["raftckpt_commit_seconds_count"] == 3
    assert told['raftckpt_alarms{source="state"}'] == 2
    assert told['raftckpt_role{role="leader"}'] == told["raftckpt_has_leader"] == 1
    assert told['raftckpt_limit{limit="pending_commands"}'] == PENDING_COMMANDS_MAX
    assert told["raftckpt_leader_changes_total"] == told["raftckpt_elections_won_total"] == 1
    assert readiness(world.replica) == "ok"
    lost = LoneReplica(lead=False)
    told = values(exposition(sources(lost)))
    assert told["raftckpt_has_leader"] == 0
    assert readiness(lost.replica) == "no-leader"


def test_buckets_are_upper_bounds() -> None:
    histogram = Buckets((1.0, 2.0))
    for value in (0.5, 1.0, 1.1, 2.0, 2.1, 99.0):
        histogram.observe(value)
    assert histogram.cumulative() == [2, 4, 6]
    assert histogram.sum == pytest.approx(105.7)


def test_a_scrape_costs_the_same_whatever_the_state_holds() -> None:
    world = LoneReplica()
    of = sources(world)
    exposition(of)  # what is made once
    before = calls_of(lambda: exposition(of))
    for number in range(50):
        client = world.open_session(secret=bytes([number]) * 16)
        handle = world.open_checkpoint(client)
        for sequence in range(2, 12):
            world.put(client, handle, sequence, b"k%d" % sequence)
    world.log.step()
    assert len(world.replica.machine.sessions) == 50
    assert calls_of(lambda: exposition(of)) <= before + 10
    assert before < 2000  # of about a microsecond each: far below five milliseconds


def test_kinds_have_their_samples() -> None:
    assert {kind for kind in MetricKind} == {metric.kind for metric in METRICS}
