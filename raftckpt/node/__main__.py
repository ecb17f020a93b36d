"""``python -m raftckpt.node``."""

from __future__ import annotations

import sys

from raftckpt.node.main import main

if __name__ == "__main__":
    sys.exit(main())
