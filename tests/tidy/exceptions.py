"""What is not tidy yet. These tables only shrink: an entry that is no longer needed fails, too."""

from __future__ import annotations

__all__ = ["BARE_TAGS", "CLASS_NAMES", "UNUSED"]

UNUSED: dict[str, set[str]] = {}
"""Names that nothing in the product reads."""

CLASS_NAMES = {
    "Access": {"raftckpt/bench/link.py", "raftckpt/errors.py"},
    "Attributes": {"raftckpt/client/types.py", "raftckpt/model/types.py"},
    "Checkpoint": {
        "raftckpt/client/aio.py",
        "raftckpt/client/sync.py",
        "raftckpt/model/checkpoints.py",
    },
    "CheckpointExtras": {"raftckpt/client/aio_extras.py", "raftckpt/client/sync_extras.py"},
    "Client": {"raftckpt/chaos/stage.py", "raftckpt/server/dispatch.py"},
    "Component": {
        "raftckpt/ha/aio.py",
        "raftckpt/ha/component.py",
        "raftckpt/testing/csa103/component.py",
    },
    "Digest": {"raftckpt/chaos/history.py", "raftckpt/node/digests.py"},
    "Driver": {
        "raftckpt/client/aio_driver.py",
        "raftckpt/client/sync_driver.py",
        "raftckpt/node/driver.py",
    },
    "Following": {"raftckpt/capi/following.py", "raftckpt/raft/following.py"},
    "Group": {"raftckpt/ha/admin.py", "raftckpt/ha/aio.py", "raftckpt/model/groups.py"},
    "Judgement": {"raftckpt/chaos/linearizability.py", "raftckpt/testing/csa103/verdict.py"},
    "Lease": {"raftckpt/ha/aio.py", "raftckpt/ha/leasing.py"},
    "Library": {"raftckpt/errors.py", "raftckpt/saf/initialization.py"},
    "Link": {"raftckpt/bench/link.py", "raftckpt/client/config.py"},
    "Listing": {"raftckpt/model/values.py", "raftckpt/protocol/frames.py"},
    "Operation": {"raftckpt/chaos/history.py", "raftckpt/model/groups.py"},
    "Outcome": {"raftckpt/chaos/history.py", "raftckpt/testing/csa103/director.py"},
    "Pages": {"raftckpt/model/values.py", "raftckpt/protocol/frames.py"},
    "Part": {"raftckpt/chaos/history.py", "raftckpt/client/changes.py"},
    "Plan": {"raftckpt/bench/loads.py", "raftckpt/chaos/run.py"},
    "Probe": {"raftckpt/client/probe.py", "raftckpt/testing/probe.py"},
    "Roles": {"raftckpt/node/roles.py", "raftckpt/testing/csa103/component.py"},
    "Service": {"raftckpt/client/aio.py", "raftckpt/client/sync.py"},
    "ServiceExtras": {"raftckpt/client/aio_extras.py", "raftckpt/client/sync_extras.py"},
    "Settings": {"raftckpt/ha/supervisor.py", "raftckpt/saf/settings.py"},
    "Stage": {
        "raftckpt/chaos/stage.py",
        "raftckpt/client/calls.py",
        "raftckpt/client/tracking.py",
    },
    "Sync": {"raftckpt/client/tracking.py", "raftckpt/ha/_core.py"},
    "Target": {"cli/raftckpt_cli/options.py", "raftckpt/client/tracking.py"},
    "Tracker": {"raftckpt/client/aio_tracking.py", "raftckpt/client/sync_tracking.py"},
    "Witness": {"raftckpt/chaos/witness.py", "raftckpt/ha/witness.py"},
    "Transaction": {"raftckpt/client/aio.py", "raftckpt/client/sync.py"},
    "_Axis": {"raftckpt/bench/plots.py", "raftckpt/chaos/picture.py"},
    "_Closing": {"raftckpt/client/aio_extras.py", "raftckpt/client/sync_extras.py"},
    "_Inflow": {"raftckpt/client/aio_tracking.py", "raftckpt/client/sync_tracking.py"},
    "_Reader": {"raftckpt/model/image.py", "raftckpt/node/yamltext.py"},
    "_Transfer": {"raftckpt/raft/node.py", "raftckpt/raft/sending.py"},
}
"""Class names with more than one meaning. Some stay: one class per face, or a port's shape."""

BARE_TAGS = {
    "raftckpt/chaos/history.py": {"fields[0] > 0"},
    "raftckpt/raft/links.py": {"body[0] != 0"},
}
"""Comparisons of a tag or kind with a number that should have a name."""
