"""The ``Authorization`` header: HMAC-SHA1 over six or more lines. No I/O.

Source: the HTTP API's "Request signatures": method, Content-MD5, Content-Type, Date, the ``x-mq-*`` headers in
lower case and sorted, and the request target exactly as sent. The body, host and security token are not covered.
"""

import hmac
from base64 import b64encode

__all__ = ["MQ_VERSION", "authorization", "signature"]

MQ_VERSION = "2015-06-06"


def signature(  # noqa: PLR0917 - one parameter for each line that is signed
    secret: str,
    method: str,
    target: str,
    date: str,
    content_type: str = "",
    content_md5: str = "",
    mq_headers: str = "",
) -> str:
    """Sign one request.

    Args:
        secret: the AccessKeySecret.
        method: ``POST``, ``GET`` or ``DELETE``.
        target: path and query exactly as on the request line, such as ``/topics/orders/messages?ns=MQ_INST_1``.
        date: the ``Date`` header as sent, RFC 1123 in GMT.
        content_type: the header as sent, or empty.
        content_md5: the header as sent, or empty.
        mq_headers: ``name:value`` lines of the ``x-mq-*`` headers, sorted and joined by LF; by default the version's.

    Returns:
        base64 of the HMAC-SHA1, 28 characters.
    """
    lines = (method, content_md5, content_type, date, mq_headers or f"x-mq-version:{MQ_VERSION}", target)
    return b64encode(hmac.digest(secret.encode(), "\n".join(lines).encode(), "sha1")).decode()


def authorization(access_key_id: str, signed: str) -> str:
    """The header's value: ``MQ <AccessKeyId>:<signature>``."""
    return f"MQ {access_key_id}:{signed}"
