"""Why a replica could not be reached: a sentence for people, and a word for programs."""

from __future__ import annotations

import errno
import socket
from typing import Any, Final

__all__ = ["Why", "reason_of"]

_BY_ERRNO: Final = {
    errno.ECONNREFUSED: "refused",
    errno.ETIMEDOUT: "silent",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
}
_BY_TLS: Final = {
    # the word of OpenSSL: (cause, what it means)
    "WRONG_VERSION_NUMBER": ("tls", "it speaks no TLS, and a certificate authority was given"),
    "RECORD_LAYER_FAILURE": ("tls", "it speaks no TLS, and a certificate authority was given"),
    "UNEXPECTED_EOF_WHILE_READING": ("tls", "it hung up in the TLS handshake: it may speak no TLS"),
    "UNSUPPORTED_PROTOCOL": ("tls", "it speaks an older TLS than is taken here"),
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": (
        "certificate",
        "it wants a certificate of its clients: give --cert and --key",
    ),
    "TLSV1_ALERT_UNKNOWN_CA": (
        "authority",
        "it does not know who signed the certificate of this client",
    ),
    "TLSV1_ALERT_DECRYPT_ERROR": (
        "authority",
        "it does not take the signature of the certificate of this client",
    ),
    "SSLV3_ALERT_BAD_CERTIFICATE": ("certificate", "it refuses the certificate of this client"),
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": ("certificate", "it refuses the certificate of this client"),
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": ("certificate", "the certificate of this client expired"),
    "TLSV1_ALERT_ACCESS_DENIED": ("certificate", "it refuses the certificate of this client"),
}
_DATES: Final = frozenset({9, 10})
"""Verification errors of OpenSSL about the dates of a certificate."""
_NAMES: Final = frozenset({62, 63, 64})
"""... about whom it was issued to."""


class Why(str):
    """A sentence that knows its word.

    Attributes:
        cause: "refused", "silent", "unreachable", "resolver" (its name has no address), "tls",
            "certificate", "authority", "name" (its certificate is for another one), "closed",
            "protocol" (it is no replica); "" if none of them fits.
    """

    cause: str

    def __new__(cls, text: str, cause: str = "") -> Why:
        """Make one of a sentence and its word."""
        why = super().__new__(cls, text)
        why.cause = cause
        return why


def reason_of(error: OSError) -> Why:
    """Say what went wrong when a replica was dialled or talked to."""
    if hasattr(error, "library"):  # of OpenSSL; looked at so that nobody imports ssl for nothing
        return _tls(error)
    if isinstance(error, TimeoutError):
        return Why("no answer in time", "silent")
    text = error.strerror or str(error) or type(error).__name__
    if isinstance(error, socket.gaierror):
        return Why(text, "resolver")
    return Why(text, _BY_ERRNO.get(error.errno or 0, ""))


def _tls(error: Any) -> Why:
    code = getattr(error, "verify_code", None)
    if code is not None:
        text = error.verify_message or str(error)
        if code in _DATES:
            return Why(f"its certificate is not valid now: {text}", "certificate")
        if code in _NAMES:
            return Why(f"its certificate is for another name: {text}", "name")
        return Why(f"its certificate is not of the authority given: {text}", "authority")
    cause, text = _BY_TLS.get(error.reason or "", ("tls", ""))
    return Why(text or error.strerror or str(error), cause)
