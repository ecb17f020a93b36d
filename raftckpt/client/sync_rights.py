"""Principals, spaces and rights: see :mod:`raftckpt.rights`.

Made from ``aio_rights.py`` by ``tools/faces.py``: do not edit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from raftckpt.client import access_operations as calls
from raftckpt.client.access_operations import (
    AccessStatus,
    Caller,
    NewToken,
    PrincipalRow,
    SpaceRow,
)
from raftckpt.client.sync import Service

__all__ = ["Rights"]


class Rights:
    """Rights of a cluster.

    Arguments:
        service: a connection of who may operate the cluster, or of anybody while rights are off.
        timeout: seconds for each call; None: the service's.
    """

    def __init__(self, service: Service, *, timeout: float | None = None) -> None:
        self._driver = service._driver
        self._timeout = timeout

    def _run(self, call: Any) -> Any:
        return self._driver.run(call, self._timeout)

    def status(self) -> AccessStatus:
        """Whether rights are on, and how many principals and spaces there are."""
        status: AccessStatus = self._run(calls.auth_status())
        return status

    def whoami(self) -> Caller:
        """Who this connection proved to be, and what is granted to it."""
        caller: Caller = self._run(calls.who_am_i())
        return caller

    def enable(self, *, expected: int | None = None) -> int:
        """Ask for rights from now on. All sessions that are nobody's end, this one as well.

        Returns:
            Revision of the tables.

        Raises:
            BadOperation: no principal with a working credential may operate the cluster.
            Access: while rights are off, over a port that is neither loopback nor TLS.
        """
        return int(self._run(calls.auth_set(True, expected)))

    def disable(self, *, expected: int | None = None) -> int:
        """Ask for nothing any more: everybody may do everything."""
        return int(self._run(calls.auth_set(False, expected)))

    def principals(self) -> tuple[int, list[PrincipalRow]]:
        """List principals, with the revision of the tables."""
        found: tuple[int, list[PrincipalRow]] = self._run(calls.principals())
        return found

    def spaces(self) -> tuple[int, list[SpaceRow]]:
        """List spaces with their grants and quotas, with the revision of the tables."""
        found: tuple[int, list[SpaceRow]] = self._run(calls.spaces())
        return found

    def create_principal(
        self,
        name: str,
        token: NewToken | None = None,
        *,
        ends: float | None = None,
        certificate: bool = False,
        expected: int | None = None,
    ) -> int:
        """Make a principal, which has no rights yet.

        Arguments:
            name: letters, digits, dots, dashes, underscores.
            token: see :func:`make_token`; the cluster keeps its SHA-256 alone.
            ends: seconds since 1970 at which the token ends; None: never.
            certificate: certificates for ``raftckpt://CLUSTER/client/NAME`` prove it.
            expected: see above.

        Raises:
            Exist: there is one of this name.
        """
        return int(self._run(calls.principal_create(name, token, ends, certificate, expected)))

    def rotate_token(
        self,
        name: str,
        token: NewToken,
        *,
        ends: float | None = None,
        keep: float = 0.0,
        expected: int | None = None,
    ) -> int:
        """Give a principal another token.

        Arguments:
            name: of the principal.
            token: the new one.
            ends: seconds since 1970 at which it ends; None: never.
            keep: seconds for which the tokens it has go on.
            expected: see above.

        Raises:
            NotExist: there is no such principal.
        """
        return int(self._run(calls.principal_rotate(name, token, ends, keep, expected)))

    def revoke_principal(self, name: str, *, expected: int | None = None) -> int:
        """Forget a principal with its credentials and grants; its sessions end.

        Raises:
            NotExist: there is no such principal.
            BadOperation: nobody else could operate the cluster.
        """
        return int(self._run(calls.principal_revoke(name, expected)))

    def create_space(self, prefix: str, *, expected: int | None = None) -> int:
        """Make a space, on which nobody has rights yet, whatever a shorter prefix grants.

        Raises:
            Exist: there is one of this prefix.
        """
        return int(self._run(calls.space_create(prefix, expected)))

    def delete_space(self, prefix: str, *, expected: int | None = None) -> int:
        """Forget a space: the next shorter prefix decides on its names.

        Raises:
            NotExist: there is no such space.
        """
        return int(self._run(calls.space_delete(prefix, expected)))

    def grant(
        self,
        prefix: str,
        principal: str,
        rights: str | Iterable[str],
        *,
        expected: int | None = None,
    ) -> int:
        """Give rights on a space: of read, write, create, drop, operate.

        Raises:
            NotExist: there is no such space, or no such principal.
        """
        return int(self._run(calls.space_grant(prefix, principal, rights, expected)))

    def revoke(
        self,
        prefix: str,
        principal: str,
        rights: str | Iterable[str],
        *,
        expected: int | None = None,
    ) -> int:
        """Take rights on a space away: from open handles, components and trackers as well.

        Raises:
            NotExist: there is no such space, or no such principal.
            BadOperation: nobody else could operate the cluster.
        """
        return int(self._run(calls.space_revoke(prefix, principal, rights, expected)))

    def set_quota(
        self,
        prefix: str,
        quotas: Mapping[str, int | None],
        *,
        expected: int | None = None,
    ) -> int:
        """Set quotas of a space, those named: what would grow beyond one is refused (NoSpace).

        They hold whether rights are on or off. One below what is used takes nothing away.

        Arguments:
            prefix: of the space.
            quotas: most checkpoints, sections, bytes of content, by these names; None: no quota.
            expected: see above.

        Raises:
            NotExist: there is no such space.
            InvalidParam: there is no such quota.
        """
        return int(self._run(calls.space_quota(prefix, quotas, expected)))
