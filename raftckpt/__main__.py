"""``python -m raftckpt``: the command line."""

from __future__ import annotations

from raftckpt_cli.main import main

if __name__ == "__main__":
    main()
