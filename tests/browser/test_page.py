"""The page in a real browser: it shows what happens without a reload, and how it looks."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from raftckpt.testing import LocalCluster
from tests.admin import url
from tests.browser.stage import Played, browser_path, staged
from tests.terminal import Terminal, drawn
from tests.waiting import PATIENCE

playwright = pytest.importorskip("playwright.sync_api", reason="pip install '.[browser]'")
BROWSER = browser_path()
pytestmark = pytest.mark.skipif(BROWSER is None, reason="this machine has no Chromium")

TOP = (sys.executable, "-c", "from raftckpt_cli.main import main; main()", "top")
PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
DEADLINE_MS = 15_000
LEADER_IS_ANOTHER = """(former) => {
    const node = document.getElementById("leader").dataset.node;
    return node !== "" && node !== former;
}"""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """One for all: the tests stand in the order in which they leave it fit for the next."""
    with staged(tmp_path_factory.mktemp("stage") / "cluster") as stage:
        yield stage


@pytest.fixture
def browser() -> Iterator:
    with playwright.sync_playwright() as driver:
        # no sandbox: CI runs as root, and the page is ours
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser, cluster: LocalCluster, node: str, **how):
    """A page of a replica, and what it complained of."""
    page = browser.new_page(**how)
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda r: (
            complaints.append(r.url)
            if "127.0.0.1" not in r.url and not r.url.startswith("data:")
            else None
        ),
    )
    page.goto(url(cluster, node))
    return page, complaints


@pytest.mark.pictures
@pytest.mark.timeout(600)
def test_pictures_for_the_documents(stage, browser) -> None:
    """Some minutes of a life: load, a component that dies, a leader that dies."""
    cluster = stage.cluster
    leader = cluster.leader()
    survivor = next(node for node in cluster.nodes if node != leader)
    page, complaints = opened(browser, cluster, survivor, viewport={"width": 1240, "height": 900})
    page.wait_for_timeout(60_000)
    stage.components[0].end()
    page.wait_for_timeout(30_000)
    cluster.kill(leader)
    page.wait_for_function(LEADER_IS_ANOTHER, arg=leader, timeout=DEADLINE_MS)
    page.wait_for_timeout(45_000)
    PICTURES.mkdir(exist_ok=True)
    page.goto(url(cluster, cluster.leader()))
    page.locator("summary").click()
    page.wait_for_timeout(2000)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.screenshot(path=PICTURES / f"page-{scheme}.png", full_page=True)
    with closing(Terminal(*TOP, "--endpoints", cluster.endpoints)) as terminal:
        terminal.until(lambda text: "call-control" in text and "billing/sessions" in text)
        page.wait_for_timeout(5000)
        PICTURES.joinpath("top.svg").write_text(drawn(terminal.cells()), "utf-8")
    phone, _ = opened(
        browser, cluster, cluster.leader(), viewport={"width": 390, "height": 844},
        device_scale_factor=2, color_scheme="dark",
    )  # fmt: skip
    phone.wait_for_timeout(3000)
    phone.screenshot(path=PICTURES / "page-phone.png")
    assert complaints == []
    cluster.start(leader)
    cluster.wait_ready(PATIENCE)


def test_nothing_runs_but_what_is_ours(stage, browser) -> None:
    """Names that are markup are text; what is written into a page does not run."""
    name = "<img src=x onerror=\"document.title='owned'\">"
    stage.service.open(name, create=stage.attributes)
    page, complaints = opened(browser, stage.cluster, stage.cluster.leader())
    page.get_by_text(name).first.wait_for(timeout=DEADLINE_MS)
    assert "owned" not in page.title()
    assert page.locator("#checkpoints img").count() == 0
    assert complaints == []
    page.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran=1\">')"
    )
    page.wait_for_timeout(300)
    assert page.evaluate("window.ran") is None
    assert any("Content Security Policy" in said for said in complaints)


@pytest.mark.parametrize("width", [360, 768])
def test_it_fits_a_small_screen(stage, browser, width) -> None:
    cluster = stage.cluster
    page, _ = opened(browser, cluster, cluster.leader(), viewport={"width": width, "height": 800})
    page.locator("#checkpoints table").wait_for(timeout=DEADLINE_MS)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_leader_that_dies_is_seen_without_a_reload(stage, browser) -> None:
    cluster = stage.cluster
    leader = cluster.leader()
    survivor = next(node for node in cluster.nodes if node != leader)
    page, complaints = opened(browser, cluster, survivor)
    page.evaluate("window.mine = 'not loaded again'")
    page.wait_for_function("(node) => document.getElementById('leader').dataset.node === node",
                           arg=leader, timeout=DEADLINE_MS)  # fmt: skip
    page.locator("summary").click()
    killed = time.monotonic()
    cluster.kill(leader)
    page.wait_for_function(LEADER_IS_ANOTHER, arg=leader, timeout=DEADLINE_MS)
    print(f"\nseen {time.monotonic() - killed:.2f} s after the kill")
    row = page.locator("#members tr", has_text=leader)
    row.locator(".wrong", has_text="down").wait_for(timeout=DEADLINE_MS)
    text = page.locator("#timeline").inner_text()
    assert f"leader {leader} leads" in text
    assert f"leader {cluster.leader()} leads, term" in text
    assert page.evaluate("window.mine") == "not loaded again"
    assert page.locator("details").get_attribute("open") is not None  # as it was left
    assert complaints == []
    cluster.start(leader)
    cluster.wait_ready(PATIENCE)


def test_the_page_of_one_that_dies_says_that_it_is_old(stage, browser) -> None:
    cluster = stage.cluster
    survivor = cluster.leader()
    page, _ = opened(browser, cluster, survivor)
    cluster.kill(survivor)
    page.locator("#stale", has_text="does not answer").wait_for(
        state="visible", timeout=DEADLINE_MS
    )
