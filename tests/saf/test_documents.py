"""The Python of docs/guides/saf.md runs; the configuration's defaults are those it names."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from raftckpt import saf
from raftckpt.testing import LocalCluster

TEXT = (Path(__file__).parents[2] / "docs" / "guides" / "saf.md").read_text("utf-8")


def test_python_runs(saf_cluster: LocalCluster) -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL))
    names: dict[str, Any] = {}
    exec(code.replace("127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403", saf_cluster.endpoints), names)
    assert saf.saCkptFinalize(names["library"]) == saf.SA_AIS_OK


def test_defaults() -> None:
    parameters = inspect.signature(saf.configure).parameters
    told = dict(re.findall(r"^\| `(\w+)` \| (\w+(?: s)?) \|", TEXT, re.MULTILINE))
    words = {"on": True, "off": False}
    assert set(told) <= set(parameters)
    assert len(told) == 6
    for name, word in told.items():
        value = words[word] if word in words else float(word.removesuffix(" s"))
        assert parameters[name].default == value, name
