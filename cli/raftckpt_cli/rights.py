"""``raftckpt auth``, ``principal`` and ``space``: who may do what."""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from raftckpt.errors import Exist
from raftckpt_cli.limits import Size, show_amount
from raftckpt_cli.options import ClusterTarget, cluster_options, confirm
from raftckpt_cli.output import (
    ExitCode,
    Failure,
    print_json,
    print_pairs,
    print_table,
    show_time,
)

if TYPE_CHECKING:
    from raftckpt.rights import NewToken, Rights, SpaceRow

__all__ = ["auth", "principal", "space"]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_ALL = "read,write,create,drop,operate"
_TENANT = "read,write,create,drop"


def _seconds(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """``90s``, ``15m``, ``12h``, ``30d``, in seconds."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,6})([smhd])", value)
    if found is None:
        raise click.BadParameter(f"{value!r} is no duration: 90s, 15m, 12h or 30d")
    return float(int(found[1]) * _UNITS[found[2]])


_expected_option = click.option(
    "--if-revision",
    "expected",
    type=click.IntRange(0),
    help="Only if the rights still have this revision, as `auth status` tells it.",
)
_token_out_option = click.option(
    "--token-out",
    type=click.Path(dir_okay=False),
    help="New file for the token, readable by you alone.  [default: print it]",
)
_ends_option = click.option(
    "--ends-in",
    callback=_seconds,
    metavar="DURATION",
    help="The token ends after 90s, 15m, 12h, 30d.  [default: never]",
)


def _rights(service: Any) -> Rights:
    from raftckpt.rights import Rights

    return Rights(service)


def _tell(target: ClusterTarget, revision: int, what: str, **more: Any) -> None:
    if target.json:
        print_json({"revision": revision, **more})
    else:
        click.echo(f"{what}; the rights have revision {revision}")


def _new_token(path: str | None) -> NewToken:
    """Make a token and write it down before anything is asked of the cluster."""
    from raftckpt.rights import make_token

    token = make_token()
    if path is not None:
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.write(file, token.text.encode() + b"\n")
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            raise Failure(
                f"cannot write the token to {path}",
                str(error.strerror),
                "name a file that does not exist yet, in a directory that you may write to",
            ) from None
    return token


def _hand_out(
    target: ClusterTarget, revision: int, what: str, token: Any, path: str | None
) -> None:
    shown = token.text if token is not None and path is None else None
    if target.json:
        number = None if token is None else token.id
        print_json({"revision": revision, "token_id": number, "token": shown, "token_file": path})
        return
    click.echo(f"{what}; the rights have revision {revision}", err=True)
    if shown is not None:
        click.echo(shown)
        click.echo("this is the only time that the token is shown", err=True)
    elif path is not None:
        click.echo(f"its token is in {path}", err=True)


class _Kept:
    """Removes the file of a token that was certainly not given to anybody."""

    def __init__(self, path: str | None) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._path is not None and getattr(error, "definite", False):
            Path(self._path).unlink(missing_ok=True)


# --- auth ----------------------------------------------------------------------------------------


@click.group()
def auth() -> None:
    """Switch rights on and off; who am I?"""


@auth.command("enable")
@_expected_option
@cluster_options
def enable(target: ClusterTarget, expected: int | None) -> None:
    """Ask for rights from now on: what is not granted is not allowed.

    A principal with a working credential must have `operate` on all names. Every session that is
    nobody's ends.

    \b
    Examples:
      raftckpt principal create ops --operator --token-out ops.token
      raftckpt auth enable
    """  # noqa: D301
    with target.connect() as service:
        revision = _rights(service).enable(expected=expected)
    _tell(target, revision, "rights are on")


@auth.command("disable")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_expected_option
@cluster_options
def disable(target: ClusterTarget, yes: bool, expected: int | None) -> None:
    """Ask for nothing any more: everybody who can connect may do everything.

    Principals and spaces stay, for the next time; tokens are refused until then.

    \b
    Examples:
      raftckpt auth disable --token-file ops.token
    """  # noqa: D301
    confirm("switch rights off, and let everybody do everything", yes=yes, look="auth status")
    with target.connect() as service:
        revision = _rights(service).disable(expected=expected)
    _tell(target, revision, "rights are off")


@auth.command("status")
@cluster_options
def status(target: ClusterTarget) -> None:
    """Tell whether rights are on.

    \b
    Examples:
      raftckpt auth status --token-file ops.token
      raftckpt auth status -o json | jq .revision
    """  # noqa: D301
    with target.connect(session=False) as service:
        found = _rights(service).status()
    if target.json:
        print_json(found._asdict())
        return
    print_pairs(
        [
            ("rights", "on" if found.on else "off"),
            ("revision", found.revision),
            ("principals", found.principals),
            ("spaces", found.spaces),
            ("operators", f"{found.operators} with a credential that works"),
        ]
    )


@auth.command("whoami")
@cluster_options
def whoami(target: ClusterTarget) -> None:
    """Tell who these credentials are, and what is granted to them.

    \b
    Examples:
      raftckpt auth whoami --token-file billing.token
    """  # noqa: D301
    with target.connect(session=False) as service:
        found = _rights(service).whoami()
    if target.json:
        print_json({"principal": found.principal or None, "grants": found.grants})
        return
    click.echo(found.principal or "nobody: rights are off")
    if found.grants:
        rows = [[_shown(prefix), ",".join(rights)] for prefix, rights in found.grants.items()]
        print_table(["space", "rights"], rows)


def _shown(prefix: str) -> str:
    return prefix or "(all names)"


# --- principals ----------------------------------------------------------------------------------


@click.group()
def principal() -> None:
    """Make and revoke principals, give them tokens."""


@principal.command("create")
@click.argument("name")
@click.option("--operator", is_flag=True, help="Grant it `operate` on all names.")
@click.option(
    "--space",
    "prefix",
    metavar="PREFIX",
    help="Grant it all but `operate` on this space, which is made if there is none.",
)
@click.option(
    "--certificate/--no-certificate",
    default=False,
    help="Certificates for raftckpt://CLUSTER/client/NAME prove it.",
)
@click.option("--token/--no-token", "wants_token", default=True, help="Make a token.  [default]")
@_token_out_option
@_ends_option
@_expected_option
@cluster_options
def create(
    target: ClusterTarget,
    name: str,
    operator: bool,
    prefix: str | None,
    certificate: bool,
    wants_token: bool,
    token_out: str | None,
    ends_in: float | None,
    expected: int | None,
) -> None:
    """Make a principal; it has no rights but what --operator and --space grant.

    \b
    Examples:
      raftckpt principal create ops --operator --token-out ops.token
      raftckpt principal create billing --space billing/ --ends-in 90d --token-out billing.token
      raftckpt principal create reports --certificate --no-token
    """  # noqa: D301
    if not (wants_token or certificate):
        raise click.UsageError("--no-token needs --certificate: how is it to be known?")
    token = _new_token(token_out) if wants_token else None
    ends = None if ends_in is None else time.time() + ends_in
    with _Kept(token_out if wants_token else None), target.connect() as service:
        rights = _rights(service)
        revision = rights.create_principal(
            name, token, ends=ends, certificate=certificate, expected=expected
        )
    grants = [("", "operate")] if operator else []
    grants += [] if prefix is None else [(prefix, _TENANT)]
    if grants:
        with target.connect() as service:
            rights = _rights(service)
            for space_prefix, words in grants:
                with contextlib.suppress(Exist):
                    rights.create_space(space_prefix)
                revision = rights.grant(space_prefix, name, words)
    path = token_out if wants_token else None
    _hand_out(target, revision, f"principal {name} is made", token, path)


@principal.command("rotate")
@click.argument("name")
@click.option(
    "--keep",
    callback=_seconds,
    metavar="DURATION",
    help="The tokens it has go on for 15m, 12h, 7d.  [default: they end at once]",
)
@_token_out_option
@_ends_option
@_expected_option
@cluster_options
def rotate(
    target: ClusterTarget,
    name: str,
    keep: float | None,
    token_out: str | None,
    ends_in: float | None,
    expected: int | None,
) -> None:
    """Give a principal another token.

    \b
    Examples:
      raftckpt principal rotate billing --keep 12h --token-out billing.new
    """  # noqa: D301
    token = _new_token(token_out)
    ends = None if ends_in is None else time.time() + ends_in
    with _Kept(token_out), target.connect() as service:
        revision = _rights(service).rotate_token(
            name, token, ends=ends, keep=keep or 0.0, expected=expected
        )
    _hand_out(target, revision, f"principal {name} has another token", token, token_out)


@principal.command("revoke")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_expected_option
@cluster_options
def revoke_principal(target: ClusterTarget, name: str, yes: bool, expected: int | None) -> None:
    """Forget a principal, its credentials and grants; its sessions end at once.

    \b
    Examples:
      raftckpt principal revoke billing
    """  # noqa: D301
    confirm(f"revoke principal {name} and end its sessions", yes=yes, look="principal list")
    with target.connect() as service:
        revision = _rights(service).revoke_principal(name, expected=expected)
    _tell(target, revision, f"principal {name} is revoked")


@principal.command("list")
@cluster_options
def list_principals(target: ClusterTarget) -> None:
    """List principals with the ids of their tokens.

    \b
    Examples:
      raftckpt principal list
      raftckpt principal list -o json | jq -r '.principals[].name'
    """  # noqa: D301
    with target.connect(session=False) as service:
        revision, found = _rights(service).principals()
    if target.json:
        rows: list[dict[str, Any]] = [
            {
                "name": each.name,
                "certificate": each.certificate,
                "tokens": [
                    {"id": number, "ends": None if ends is None else ends / 1e9}
                    for number, ends in each.tokens
                ],
            }
            for each in found
        ]
        print_json({"revision": revision, "principals": rows})
        return
    table = []
    for each in found:
        credentials = ["certificate"] if each.certificate else []
        for number, ends in each.tokens:
            end = "" if ends is None else f" until {show_time(ends / 1e9)}"
            credentials.append(f"token {number}{end}")
        table.append([each.name, ", ".join(credentials) or "none"])
    print_table(["principal", "credentials"], table)


# --- spaces --------------------------------------------------------------------------------------


@click.group()
def space() -> None:
    """Make spaces of names, grant rights on them, and say how much they may hold.

    A space is a prefix of names of checkpoints, groups and locks; the longest one that fits decides
    on a name, alone. The space '' is that of all names that no other one fits.
    """


@space.command("create")
@click.argument("prefix")
@_expected_option
@cluster_options
def create_space(target: ClusterTarget, prefix: str, expected: int | None) -> None:
    """Make a space. Nobody has rights on it yet, whatever a shorter prefix grants.

    \b
    Examples:
      raftckpt space create billing/
    """  # noqa: D301
    with target.connect() as service:
        revision = _rights(service).create_space(prefix, expected=expected)
    _tell(target, revision, f"space {_shown(prefix)} is made")


@space.command("grant")
@click.argument("prefix")
@click.argument("principal")
@click.argument("rights", default=_TENANT)
@_expected_option
@cluster_options
def grant(
    target: ClusterTarget, prefix: str, principal: str, rights: str, expected: int | None
) -> None:
    """Grant RIGHTS of read, write, create, drop, operate.  [default: all but operate]

    \b
    Examples:
      raftckpt space grant billing/ billing
      raftckpt space grant billing/ reports read
    """  # noqa: D301
    with target.connect() as service:
        revision = _rights(service).grant(prefix, principal, rights, expected=expected)
    _tell(target, revision, f"{principal} has {rights} on {_shown(prefix)}")


@space.command("revoke")
@click.argument("prefix")
@click.argument("principal")
@click.argument("rights", default=_ALL)
@_expected_option
@cluster_options
def revoke(
    target: ClusterTarget, prefix: str, principal: str, rights: str, expected: int | None
) -> None:
    """Take RIGHTS away: from what is open, from components and trackers as well.  [default: all]

    \b
    Examples:
      raftckpt space revoke billing/ reports
      raftckpt space revoke billing/ billing drop
    """  # noqa: D301
    with target.connect() as service:
        revision = _rights(service).revoke(prefix, principal, rights, expected=expected)
    _tell(target, revision, f"{principal} has no {rights} on {_shown(prefix)}")


class _Quota(click.ParamType[tuple[str, int]]):
    """``bytes=10GiB``, ``checkpoints=100``, ``sections=none``."""

    name = "quota=most"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """Return name and number; 0: none."""
        name, _, most = value.partition("=")
        if name == "bytes":
            return name, Size().convert(most, param, ctx)
        if not (most == "none" or most.isdecimal()):
            self.fail(f"{value!r} is no quota: bytes=10GiB, checkpoints=100 or none", param, ctx)
        return name, 0 if most == "none" else int(most)


@space.command("quota")
@click.argument("prefix")
@click.argument("quotas", type=_Quota(), nargs=-1, required=True, metavar="QUOTA=MOST...")
@_expected_option
@cluster_options
def quota(
    target: ClusterTarget, prefix: str, quotas: tuple[tuple[str, int], ...], expected: int | None
) -> None:
    """Set quotas of a space: checkpoints, sections, bytes of content; none takes one away.

    What would grow beyond one is refused, whether rights are on or off. A quota below what is used
    takes nothing away.

    \b
    Examples:
      raftckpt space quota billing/ bytes=10GiB checkpoints=100
      raftckpt space quota billing/ bytes=none
    """  # noqa: D301
    with target.connect() as service:
        revision = _rights(service).set_quota(prefix, dict(quotas), expected=expected)
    _tell(target, revision, f"space {_shown(prefix)} has other quotas")


def _spaces(target: ClusterTarget) -> Any:
    with target.connect(session=False) as service:
        return _rights(service).spaces()


def _told(each: SpaceRow) -> dict[str, Any]:
    quotas = {name: found._asdict() for name, found in each.quotas.items()}
    return {"prefix": each.prefix, "grants": each.grants, "quotas": quotas}


def _amounts(name: str, most: int, used: int) -> tuple[str, str]:
    unit = "bytes" if name == "bytes" else ""
    return show_amount(most, unit), show_amount(used, unit)


def _quotas_in_short(each: SpaceRow) -> str:
    told = [(name, *_amounts(name, *found)) for name, found in each.quotas.items()]
    return ", ".join(f"{name} {used} of {most}" for name, most, used in told) or "none"


@space.command("list")
@cluster_options
def list_spaces(target: ClusterTarget) -> None:
    """List spaces, with what is used of their quotas.

    \b
    Examples:
      raftckpt space list
    """  # noqa: D301
    revision, found = _spaces(target)
    if target.json:
        print_json({"revision": revision, "spaces": [_told(each) for each in found]})
        return
    print_table(
        ["space", "principals", "quotas"],
        [
            [_shown(each.prefix), ", ".join(each.grants) or "none", _quotas_in_short(each)]
            for each in found
        ],
    )


@space.command("show")
@click.argument("prefix")
@cluster_options
def show(target: ClusterTarget, prefix: str) -> None:
    """Show who has which rights on a space, and what is used of its quotas.

    \b
    Examples:
      raftckpt space show billing/
    """  # noqa: D301
    _, found = _spaces(target)
    shown = next((each for each in found if each.prefix == prefix), None)
    if shown is None:
        raise Failure(
            f"there is no space {prefix!r}",
            "no space has exactly this prefix",
            "raftckpt space list",
            ExitCode.NOT_FOUND,
        )
    if target.json:
        print_json(_told(shown))
        return
    grants = [[name, ",".join(rights)] for name, rights in shown.grants.items()]
    print_table(["principal", "rights"], grants)
    if shown.quotas:
        rows = [[name, *_amounts(name, *found)] for name, found in shown.quotas.items()]
        print_table(["quota", "most", "used"], rows)


@space.command("delete")
@click.argument("prefix")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_expected_option
@cluster_options
def delete(target: ClusterTarget, prefix: str, yes: bool, expected: int | None) -> None:
    """Forget a space with its grants; the next shorter prefix decides on its names.

    \b
    Examples:
      raftckpt space delete billing/
    """  # noqa: D301
    confirm(f"delete space {_shown(prefix)} and its grants", yes=yes, look="space show")
    with target.connect() as service:
        revision = _rights(service).delete_space(prefix, expected=expected)
    _tell(target, revision, f"space {_shown(prefix)} is deleted")
