"""Files a process may have open: as many as its clients may need beside its own."""

from __future__ import annotations

import resource

__all__ = ["raise_descriptors"]


def raise_descriptors(wanted: int) -> int:
    """Raise the soft limit to what is wanted, as far as the hard one goes; returns what it is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most
