"""The inputs that a guided search found interesting, once more: ``python -m tests.fuzz.guided``."""

from __future__ import annotations

import pytest

from tests.fuzz.corpus import kept
from tests.fuzz.seeds import seeds_of
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_the_kept_corpus(target: str) -> None:
    inputs = kept(target)
    assert inputs
    for data in [*inputs, *seeds_of(target)]:
        try:
            TARGETS[target](data)
        except BaseException as error:
            error.add_note(f"{target}: {data.hex()}")
            raise
