"""``--secure``: every LocalCluster of a run speaks TLS, to clients and inside, and has rights on.

What the tests say stays as it is: credentials come from the environment, as for programs that are
given none. Rights are those of an operator with all of them on all names.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Final

from raftckpt.client.types import TlsOptions
from raftckpt.rights import make_token
from raftckpt.testing import LocalCluster
from tests.authority import Authority

__all__ = ["KEPT", "OWN_CREDENTIALS", "secure"]

OWN_CREDENTIALS: Final = frozenset(
    {
        "tests/c/test_credentials.py",
        "tests/cli/test_rights.py",
        "tests/e2e/test_rights.py",
        "tests/e2e/test_rights_lost.py",
        "tests/e2e/test_track_tls.py",
        "tests/saf/test_credentials.py",
    }
    | {f"tests/e2e/{path.name}" for path in Path(__file__).parent.glob("e2e/test_attacks*.py")}
    | {"tests/e2e/test_hostile.py"}
)
"""Files that say themselves what is shown to whom, or speak plain bytes: not run with it."""

NODES: Final = [f"n{number}" for number in range(1, 10)]
KEPT: Final[set[str]] = set()
"""Variables that are part of the run, and of no developer's machine."""


def secure() -> tempfile.TemporaryDirectory[str]:
    """Switch it on for this process; what is made goes with what is returned."""
    directory = tempfile.TemporaryDirectory(prefix="raftckpt-secure-")
    path = Path(directory.name)
    files = Authority(path, "clients").issue("everybody", "everybody", addresses=["127.0.0.1"])
    inside = Authority(path, "peers").issue("replicas", "replicas", dns=NODES)
    token = path / "operator.token"
    token.touch(0o600)
    token.write_text(make_token().text, "ascii")
    variables = {
        "RAFTCKPT_CA": files["ca"],
        "RAFTCKPT_CERT": files["cert"],
        "RAFTCKPT_KEY": files["key"],
        "RAFTCKPT_TOKEN_FILE": str(token),
    }
    os.environ.update(variables)
    KEPT.update(variables)
    tls = TlsOptions(files["ca"], files["cert"], files["key"])
    defaults: dict[str, Any] = LocalCluster.__init__.__kwdefaults__  # type: ignore[assignment]
    peers = TlsOptions(inside["ca"], inside["cert"], inside["key"])
    defaults.update(auth=token, tls=tls, peers=peers)
    return directory
