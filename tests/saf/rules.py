"""Which test proves which rule of which call: the source of docs/reference/conformance.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

_F = TypeVar("_F", bound=Callable[..., object])


class Proof(NamedTuple):
    call: str
    rule: str
    test: str


PROOFS: list[Proof] = []


def rule(call: str, text: str) -> Callable[[_F], _F]:
    """Say what a test proves."""

    def note(test: _F) -> _F:
        path = test.__module__.replace(".", "/")
        PROOFS.append(Proof(call, text, f"{path}.py::{test.__qualname__}"))
        return test

    return note
