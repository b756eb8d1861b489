"""Says in a sentence why a request did not get through: from what this side knows, never from what a server wrote.

The texts of grpcio's C core (1.70 to 1.85) about connections are recognized and translated; they are the only source
for the reason of a connection that failed. Whatever they quote stays out.
"""

from __future__ import annotations

import errno
import re

import grpc

NO_NAME = "the name does not resolve"
CONNECTING = "connecting takes too long"

CONNECTION = (
    (r"resolv|Domain name not found|DNS", NO_NAME),
    (r"Connection refused", "nothing listens there: connection refused"),
    (r"certificate has expired", "its certificate has expired"),
    (
        r"Hostname Verification|doesn't match|PEER_DID_NOT_RETURN|(?:Hostname|IP address) mismatch",
        "its certificate is for another name",
    ),
    (r"CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted"),
    (r"WRONG_VERSION_NUMBER|HTTP_REQUEST", "TLS is met by plaintext: write http://, or the port that speaks TLS"),
    (r"CERTIFICATE_REQUIRED|certificate required|BAD_CERTIFICATE", "it wants a certificate of this side"),
    (
        r"http1\.x server|Failed parsing HTTP/2|SETTINGS frame",
        "it does not speak gRPC: is that the port for OTLP/gRPC?",
    ),
    (r"Tls handshake failed|SSL_ERROR", "the TLS handshake failed"),
    (r"No route to host|Network is unreachable|EHOSTUNREACH|ENETUNREACH", "there is no route to it"),
    (r"timed? ?out|Deadline|handshake timeout", CONNECTING),
)
"""What the library says of a connection, and what to say. The first that is found holds."""

CUT_OFF_PLAIN = "it closes the connection at once: does it want TLS? Then write https://"
CUT_OFF_TLS = "it closes the connection during the TLS handshake: does it want a certificate of this side?"
UNCONNECTED = "no connection"
NO_ANSWER = "no answer in time"
NOT_HTTP = "it does not speak HTTP/1.1: is that the port for OTLP/HTTP?"
PROXY_REFUSES = "the HTTP proxy of the environment does not connect to it"

STATUSES = {
    grpc.StatusCode.UNAVAILABLE: "it is unavailable",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "it is overloaded, or limits the rate",
    grpc.StatusCode.DEADLINE_EXCEEDED: NO_ANSWER,
    grpc.StatusCode.UNAUTHENTICATED: "it refuses the credentials in headers",
    grpc.StatusCode.PERMISSION_DENIED: "it refuses these credentials the permission",
}
HTTP_STATUSES = {
    401: "it refuses the credentials in headers",
    403: "it refuses these credentials the permission",
    404: "it has no such path: is that the endpoint for OTLP/HTTP?",
    405: "it has no such path: is that the endpoint for OTLP/HTTP?",
    407: "a proxy in between, or another server, refuses the credentials",
    415: "it does not take protobuf, or not this compression",
    429: "it is overloaded, or limits the rate",
    502: "a proxy in between does not reach it",
    503: "it is unavailable",
    504: "a proxy in between gets no answer from it in time",
}
"""Statuses over OTLP/HTTP, and what to say of them."""
REDIRECTED = "it redirects to another URL: write that one"
TRACES_ONLY = "only traces go to traces_endpoint"
UNREAD = "standard output takes nothing"
NO_MEMORY = "this process is out of memory: lower buffer.max_bytes, or allow it more memory"
LOST = "the connection was lost before an answer came"
ANSWERED = "it answers with an error"
HTTP = "a proxy in between, or another server, answers"
HTTP_CREDENTIALS = "a proxy in between, or another server, refuses the credentials"

FILE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the system does not let it grow any further",
    errno.EIO: "the disk does not work",
    errno.EROFS: "the disk can only be read",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOENT: "its folder is not there",
    errno.ENOTDIR: "its folder is not there",
    errno.ESTALE: "the network file system has lost it",
    errno.EMFILE: "this process is out of file descriptors",
    errno.ENFILE: "the machine is out of file descriptors",
    errno.ENOMEM: "the system is out of memory",
}
"""Errors of the system at writing a file, and what to say of them."""

_CONNECTION = [(re.compile(pattern, re.IGNORECASE), sentence) for pattern, sentence in CONNECTION]


def why_unreachable(details: str, secure: bool) -> str:
    """Say why there is no connection; `secure`: by TLS."""
    for pattern, sentence in _CONNECTION:
        if pattern.search(details):
            return sentence
    if re.search("Socket closed|Connection reset|EOF|Broken pipe", details):
        return CUT_OFF_TLS if secure else CUT_OFF_PLAIN
    return UNCONNECTED


def why_broken(details: str) -> str | None:
    """Say why a TLS connection ended that seemed to be there: in TLS 1.3 the server refuses this side's certificate
    only then. None: for another reason."""
    if "SSL" not in details:
        return None
    return next((sentence for pattern, sentence in _CONNECTION if pattern.search(details)), CUT_OFF_TLS)


def why_refused(code: grpc.StatusCode) -> str:
    """Say what a status means."""
    return STATUSES.get(code, ANSWERED)


def why_unwritable(error: OSError) -> str:
    """Say why a file cannot be written."""
    reason = FILE.get(error.errno or 0)
    return f"cannot write the file: {reason}" if reason else "cannot write the file"
