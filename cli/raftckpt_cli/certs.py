"""``raftckpt certs``: an authority, and what hosts and clients get of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from raftckpt.limits import CERTIFICATE_DAYS_SOON
from raftckpt_cli.options import output_option
from raftckpt_cli.output import ExitCode, Failure, print_json, print_table

if TYPE_CHECKING:
    from raftckpt.node.issuing import CertificateStore, Issued, Spans

__all__ = ["certs"]

_F = TypeVar("_F", bound=Callable[..., Any])
_DAY_S: Final = 86_400  # 24 hours


@click.group()
def certs() -> None:
    """Certificates of replicas and clients: make, renew, check.

    They are in one directory, with the authority that signs them. Keep it on a machine of its own:
    whoever has authority/authority.key can be any replica and any client.
    """


def _dir_option(function: _F) -> _F:
    return click.option(
        "--dir",
        "directory",
        default="certs",
        envvar="RAFTCKPT_CERTS",
        show_envvar=True,
        type=click.Path(file_okay=False),
        help="Directory of the authority.  [default: certs]",
    )(function)


def _days_option(function: _F) -> _F:
    return click.option(
        "--days",
        type=click.FloatRange(0.001, 36_500),
        default=365,
        show_default=True,
        help="How long certificates hold; never longer than the authority.",
    )(function)


@certs.command("init")
@click.argument("directory", default="certs", type=click.Path(file_okay=False))
@click.option(
    "--config",
    required=True,
    envvar="RAFTCKPT_CONFIG",
    show_envvar=True,
    type=click.Path(exists=True, dir_okay=False),
    help="The cluster.yaml. A section tls is added if it has none.",
)
@click.option("--client", "clients", multiple=True, metavar="NAME", help="Also for this client.")
@_days_option
@click.option(
    "--authority-days",
    type=click.FloatRange(0.001, 36_500),
    default=3650,
    show_default=True,
    help="How long the authority holds.",
)
@output_option
def init(
    directory: str,
    config: str,
    clients: tuple[str, ...],
    days: float,
    authority_days: float,
    output: str,
) -> int:
    """Make an authority in DIRECTORY, and all that hosts and clients need.

    hosts/NODE is for one host: cluster.yaml, certificate, key, authority. clients/NAME is for one
    client: the same, and a cluster.yaml that --config and connect() take. Nothing is made if
    DIRECTORY is there already.

    \b
    Examples:
      raftckpt certs init certs --config cluster.yaml --client ops
    """  # noqa: D301
    store = _store(directory)
    with _explained(f"making certificates in {directory} failed"):
        store.found(config, list(dict.fromkeys(clients)), _spans(days, authority_days))
        found = store.look()
    return _print(found, output)


@certs.group("issue")
def issue() -> None:
    """Make certificates for more clients."""


@issue.command("client")
@click.argument("name")
@_dir_option
@_days_option
@click.option("--overwrite", is_flag=True, help="Make another one, with another key.")
@output_option
def issue_client(directory: str, name: str, days: float, overwrite: bool, output: str) -> int:
    """Make what the client NAME needs.

    It proves the principal NAME, if that was made with --certificate.

    \b
    Examples:
      raftckpt certs issue client billing
    """  # noqa: D301
    with _explained(f"making a certificate for client {name} failed"):
        made = _store(directory).issue_client(name, _spans(days), replace=overwrite)
    return _print([made], output)


@certs.command("renew")
@_dir_option
@_days_option
@click.option(
    "--within",
    type=click.FloatRange(0, 36_500),
    default=30,
    show_default=True,
    metavar="DAYS",
    help="Renew what ends within so many days.",
)
@click.option("--all", "everything", is_flag=True, help="Renew the others, too.")
@click.option("--new-keys", is_flag=True, help="With new keys.  [default: for those there are]")
@output_option
def renew(
    directory: str, days: float, within: float, everything: bool, new_keys: bool, output: str
) -> int:
    """Renew what ends soon, is missing or wrong; the authority stays.

    Copy the directories that are named to their hosts, then send each replica SIGHUP. A host that
    was added to cluster.yaml in the directory gets its first certificate here.

    \b
    Examples:
      raftckpt certs renew
      raftckpt certs renew --all --new-keys
    """  # noqa: D301
    with _explained(f"renewing certificates of {directory} failed"):
        made = _store(directory).renew(
            _spans(days), within_days=within, everything=everything, new_keys=new_keys
        )
    if not made and output != "json":
        click.echo(f"nothing ends within {within:g} days; --all renews the others, too")
        return ExitCode.OK
    return _print(made, output)


@certs.command("check")
@_dir_option
@output_option
def check(directory: str, output: str) -> int:
    """Tell of each certificate how long it holds, and what is wrong with it.

    Foreign ones, keys that do not fit, other clusters, nodes and names are wrong: exit code 1. On
    a host `raftckpt config check FILE --node NODE` looks at the same.

    \b
    Examples:
      raftckpt certs check
      raftckpt certs check -o json | jq '.certificates[] | select(.days < 30)'
    """  # noqa: D301
    with _explained(f"the certificates of {directory} cannot be checked"):
        found = _store(directory).look()
    return _print(found, output)


def _store(directory: str) -> CertificateStore:
    try:
        from raftckpt.node.issuing import CertificateStore
    except ImportError:
        raise Failure(
            "raftckpt certs needs a package that is not installed",
            "no module cryptography",
            "pip install 'raftckpt[certs]'",
            ExitCode.USAGE,
        ) from None
    return CertificateStore(directory)


def _spans(days: float, authority_days: float = 3650) -> Spans:
    from raftckpt.node.issuing import Spans

    return Spans(days, authority_days)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    from raftckpt.node.config import ConfigError

    try:
        yield
    except ConfigError as error:
        raise Failure(what, str(error), "raftckpt config check FILE", ExitCode.USAGE) from None
    except FileExistsError as error:
        raise Failure(
            what,
            str(error),
            "keys are not replaced unasked: another directory, certs renew, or issue --overwrite",
        ) from None
    except FileNotFoundError as error:
        why = f"{error.filename}: {error.strerror}"
        raise Failure(what, why, "raftckpt certs init DIRECTORY --config FILE makes one") from None
    except (OSError, ValueError) as error:
        if not isinstance(error, OSError) and type(error).__name__ != "NotUsable":
            raise
        raise Failure(what, str(error), "raftckpt certs check tells what there is") from None


def _print(found: Iterable[Issued], output: str) -> int:
    rows = list(found)
    if output == "json":
        print_json(
            {
                "certificates": [
                    {
                        "kind": each.kind,
                        "name": each.name or None,
                        "path": str(each.path),
                        "ends": each.ends,
                        "days": _days(each),
                        "faults": list(each.faults),
                    }
                    for each in rows
                ]
            }
        )
    else:
        shown = [[each.whose, _days_left(each), each.path, _state(each)] for each in rows]
        print_table(["whose", "days left", "certificate", "state"], shown)
    return ExitCode.REFUSED if any(each.faults for each in rows) else ExitCode.OK


def _days(each: Issued) -> int | None:
    return None if each.ends is None else int((each.ends - time.time()) // _DAY_S)


def _days_left(each: Issued) -> str:
    days = _days(each)
    return "-" if days is None else str(days)


def _state(each: Issued) -> str:
    if each.faults:
        return "; ".join(each.faults)
    days = _days(each)
    return "ends soon" if days is not None and days < CERTIFICATE_DAYS_SOON else "ok"
