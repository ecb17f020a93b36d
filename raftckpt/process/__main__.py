"""``python -m raftckpt.process``."""

from __future__ import annotations

import sys

from raftckpt.process.main import main

if __name__ == "__main__":
    sys.exit(main())
