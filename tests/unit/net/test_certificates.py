"""What certificates say, as ``ssl`` returns them."""

from __future__ import annotations

from typing import Any

import pytest

from raftckpt.net.certificates import handshake_failure, no_client, no_replica, replica_name


def certificate(*uris: str, name: str = "", dns: tuple[str, ...] = ()) -> dict[str, Any]:
    alternatives = [("URI", uri) for uri in uris] + [("DNS", host) for host in dns]
    return {"subject": ((("commonName", name),),), "subjectAltName": tuple(alternatives)}


@pytest.mark.parametrize("names_count", [True, False])
@pytest.mark.parametrize(
    ("shown", "why"),
    [
        (certificate("raftckpt://c/replica/n3"), ""),
        (certificate("raftckpt://d/replica/n3", "raftckpt://c/replica/n3"), ""),
        (certificate("raftckpt://c/client/n3", name="n3"), "is for raftckpt://c/client/n3"),
        (certificate("raftckpt://d/replica/n3", name="n3"), "is for raftckpt://d/replica/n3"),
        (certificate("raftckpt://c/replica/n2", name="n3", dns=("n3",)), "not for raftckpt://c/"),
    ],
)
def test_who_has_names_of_ours_is_what_they_say(
    shown: dict[str, Any], why: str, names_count: bool
) -> None:
    found = no_replica(shown, "c", "n3", names_count=names_count)
    assert why in found
    assert bool(found) == bool(why)


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        (certificate(name="n3"), ""),
        (certificate(dns=("n3",)), ""),
        (certificate("https://elsewhere/n3", name="n3"), ""),
        (certificate(name="n2", dns=("h2",)), "is for h2, n2"),
        (None, "is for nobody"),
        ({}, "is for nobody"),
    ],
)
def test_hosts_names_count_where_the_authority_signs_replicas_only(shown: Any, why: str) -> None:
    assert why in no_replica(shown, "c", "n3", names_count=True)
    assert "signs clients, too" in no_replica(shown, "c", "n3", names_count=False)


def test_a_client_of_another_cluster_is_told_so() -> None:
    assert no_client(None, "c") == no_client(certificate(name="app"), "c") == ""
    assert no_client(certificate("raftckpt://c/client/app"), "c") == ""
    assert no_client(certificate(replica_name("c", "n1")), "c") == ""
    assert "this is the cluster c" in no_client(certificate("raftckpt://cc/client/app"), "c")


def test_handshakes_fail_with_the_setting_that_helps() -> None:
    error = OSError("x")
    error.reason = "PEER_DID_NOT_RETURN_A_CERTIFICATE"  # type: ignore[attr-defined]
    assert handshake_failure(error, "tls.peer.ca").endswith("give it one of tls.peer.ca")
    assert "hung up" in handshake_failure(OSError(), "tls.peer.ca")
