"""Search with coverage as the guide: ``python -m tests.fuzz.guided TARGET --seconds 60``.

Needs atheris (``pip install atheris``). What it finds interesting is reduced to the inputs that
together run every line that was run, and with ``--keep`` written into the corpus, which ordinary
tests replay. An input that breaks something is written beside, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import logging
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from tests.fuzz.corpus import kept, write

_BYTES = ("arguments", "frames", "journal", "slot", "settings")
"""Targets whose inputs are no msgpack."""
INPUT_BYTES_MAX = 4096
KEPT_BYTES_MAX = 1024
"""Of an input in the corpus, if it is not one of those before."""


def search(target: str, where: str, seconds: int) -> None:
    """Run the fuzzer in this process, which it ends."""
    import atheris  # only here: nothing else needs it

    with atheris.instrument_imports(include=["raftckpt", "raftckpt_cli"]):
        from tests.fuzz.targets import TARGETS
    options = [f"-max_total_time={seconds}", f"-max_len={INPUT_BYTES_MAX}", "-timeout=20"]
    options += [
        "-rss_limit_mb=2000",
        "-report_slow_units=60",
        "-verbosity=1",
        f"-artifact_prefix={where}-",
        where,
    ]
    mutator = None if target in _BYTES else _mutator()
    atheris.Setup([sys.argv[0], *options], TARGETS[target], custom_mutator=mutator)
    atheris.Fuzz()


def _mutator() -> Callable[[bytes, int, int], bytes]:
    """Half of the time a change of the bytes, else one of the msgpack in them."""
    import msgpack

    from tests.fuzz.hostile import ODD, PACK, spoiled_message

    def spoil(rng: random.Random, value: Any) -> Any:
        if isinstance(value, list) and value and rng.random() < 0.8:
            at = rng.randrange(len(value))
            match rng.randrange(6):
                case 0:
                    return value[:at] + value[at + 1 :]
                case 1:
                    return [*value[:at], value[at], *value[at:]]
                case 2:
                    return [*value, spoiled_message(rng)]
                case _:
                    return [*value[:at], spoil(rng, value[at]), *value[at + 1 :]]
        if isinstance(value, int) and rng.random() < 0.7:
            return value + rng.choice([-1, 1, 2, 255, -value, 10**9])
        return rng.choice(ODD)

    def mutator(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.5:
            return _changed(rng, data, most)
        objects = []
        unpacker = msgpack.Unpacker(raw=False, strict_map_key=False)
        unpacker.feed(data)
        try:
            objects += list(unpacker)
            at = rng.randrange(len(objects))
            objects[at] = spoil(rng, objects[at])
            packed = b"".join(map(PACK, objects))
        except Exception:
            return _changed(rng, data, most)
        return packed if len(packed) <= most else _changed(rng, data, most)

    return mutator


def _changed(rng: random.Random, data: bytes, most: int) -> bytes:
    """A change of some bytes."""
    changed = bytearray(data or b"\0")
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(5):
            case 0:
                changed[at:at] = rng.randbytes(rng.randrange(1, 5))
            case 1:
                del changed[at : at + rng.randrange(1, 4)]
            case 2:
                changed[at : at + 1] = bytes([rng.choice([0, 1, 127, 128, 193, 255])])
            case 3:
                changed[at:at] = changed[at : at + rng.randrange(1, 30)]
            case _:
                at = min(at, len(changed) - 1)
                changed[at : at + 1] = bytes(
                    [changed[at] ^ 1 << rng.randrange(8)] if changed else [0]
                )
    return bytes(changed[:most])


def lines_of(target: Callable[[bytes], None], data: bytes) -> set[tuple[str, int]]:
    """Lines of the product that an input runs."""
    found: set[tuple[str, int]] = set()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        name = frame.f_code.co_filename
        if "raftckpt" not in name or "tests" in name:
            return None
        if event == "line":
            found.add((name, frame.f_lineno))
        return trace

    sys.settrace(trace)
    try:
        target(data)
    finally:
        sys.settrace(None)
    return found


def reduced(target: str, inputs: list[bytes]) -> tuple[list[bytes], int]:
    """Inputs that together run every line, the short ones first; and how many lines that is."""
    from tests.fuzz.targets import TARGETS

    seen: set[tuple[str, int]] = set()
    chosen = []
    for data in inputs:
        lines = lines_of(TARGETS[target], data)
        if not lines <= seen:
            seen |= lines
            chosen.append(data)
    return chosen, len(seen)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.guided")
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--keep", action="store_true", help="write what is new into the corpus")
    parser.add_argument("--in", dest="where", help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.disable()
    if options.where is not None:
        search(options.target, options.where, options.seconds)
        return 0
    from tests.fuzz.seeds import seeds_of

    with tempfile.TemporaryDirectory() as scratch:
        where = Path(scratch) / options.target
        where.mkdir()
        before = kept(options.target)
        for number, data in enumerate([*before, *seeds_of(options.target)]):
            (where / f"{number:06}").write_bytes(data)
        began = time.monotonic()
        command = [sys.executable, "-m", "tests.fuzz.guided", options.target]
        command += ["--in", str(where), "--seconds", str(options.seconds)]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        runs = [line for line in done.stderr.splitlines() if line.startswith(("Done", "#"))]
        print(f"{options.target}: {time.monotonic() - began:.0f} s, {runs[-1] if runs else ''}")
        broken = [path for path in Path(scratch).iterdir() if path.is_file()]
        for path in broken:
            print(f"broke: {path.name}: {path.read_bytes().hex()}")
        if broken or done.returncode:
            print(done.stderr[-4000:], file=sys.stderr)
        found = sorted((path.read_bytes() for path in where.iterdir()), key=lambda d: (len(d), d))
        short = [data for data in found if len(data) <= KEPT_BYTES_MAX and data not in before]
        chosen, lines = reduced(options.target, before + short)
        print(f"{options.target}: {len(found)} inputs, {len(chosen)} of them run {lines} lines")
        if options.keep and not broken:
            write(options.target, before + [data for data in chosen if data not in before])
    return 1 if broken or done.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
