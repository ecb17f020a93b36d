"""docs/reference/conformance.md is what the tests are."""

from __future__ import annotations

from .conformance import DOCUMENT, document


def test_the_document_is_up_to_date() -> None:
    assert DOCUMENT.read_text("utf-8") == document(), "run: python -m tests.saf.conformance"
