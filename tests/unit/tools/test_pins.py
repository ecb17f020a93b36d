"""Pins: what does not fit pyproject.toml, and what an advisory is about, is told."""

from __future__ import annotations

from packaging.requirements import Requirement

from tools.pins import ROOT, advised, pins_of, unfit, wanted

WHERE = ROOT / "requirements"


def test_the_pins_fit_pyproject_toml_and_nobody_warns_of_one() -> None:
    pins = pins_of(WHERE / "constraints.txt")
    assert len(pins) > 20
    # what is new is not pinned until somebody runs the tool; what is pinned fits
    assert not [told for told in unfit(pins, wanted()) if "is not pinned" not in told]
    assert not list(advised(pins, (WHERE / "advisories.txt").read_text("utf-8")))
    hashed = pins_of(WHERE / "hashes.txt")
    assert hashed == {name: pins.get(name) for name in hashed}


def test_what_is_wrong_is_told() -> None:
    pins = {"one": "1.5", "two": "3.0"}
    asked = [Requirement("One>=1"), Requirement("two<3"), Requirement("three")]
    assert list(unfit(pins, asked)) == [
        "two==3.0 is pinned, pyproject.toml asks for <3",
        "three is not pinned",
    ]
    told = "# a comment\n\none <1.5 X-1 old\nOne >=1.5,<2 X-2 what it is\ntwo ==4 X-3 no\n"
    assert list(advised(pins, told)) == ["One==1.5: X-2: what it is"]
