"""Inputs that are kept: one file per target, an input in hexadecimal digits per line."""

from __future__ import annotations

from pathlib import Path

__all__ = ["kept", "write"]

_HERE = Path(__file__).parent


def kept(target: str) -> list[bytes]:
    """Return the inputs of a target."""
    path = _HERE / f"{target}.txt"
    return [bytes.fromhex(line) for line in path.read_text().splitlines()] if path.exists() else []


def write(target: str, inputs: list[bytes]) -> None:
    """Replace them."""
    (_HERE / f"{target}.txt").write_text("".join(f"{data.hex()}\n" for data in inputs))
