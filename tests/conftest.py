"""Fixtures of several rings."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch) -> None:
    """A developer's own RAFTCKPT_* variables must not steer the tests."""
    for name in list(os.environ):
        if name.startswith("RAFTCKPT_"):
            monkeypatch.delenv(name)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite", action="store_true", help="write what the stories of tests/scripts show"
    )
