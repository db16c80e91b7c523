"""Where requests may go."""

import pytest

from outbox.endpoint import checked_endpoint, is_forbidden_address
from outbox.errors import ConfigError

HOST = "1234567890.mqrest.cn-hangzhou.aliyuncs.com"


@pytest.mark.parametrize(
    ("url", "normalised"),
    [
        (f"https://{HOST}", f"https://{HOST}"),
        (f"https://{HOST}/", f"https://{HOST}"),
        (f"HTTPS://{HOST.upper()}/", f"https://{HOST}"),
        (f"https://{HOST}:8443/", f"https://{HOST}:8443"),
        ("http://localhost", "http://localhost"),
        ("http://LOCALHOST:8080/", "http://localhost:8080"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.1.2.3", "http://127.1.2.3"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("http://[::ffff:127.0.0.1]", "http://[::ffff:127.0.0.1]"),
        ("https://rocketmq_emulator:8080", "https://rocketmq_emulator:8080"),
        ("https://10.0.0.5", "https://10.0.0.5"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]"),
        ("https://xn--fsqu00a.example", "https://xn--fsqu00a.example"),
        ("https://1234.5678.example", "https://1234.5678.example"),
    ],
)
def test_accept_and_normalise(url, normalised):
    """A scheme, a host and perhaps a port; http only to this machine."""
    assert normalised == checked_endpoint(url, allow_http=False, sts=False)
    assert normalised == checked_endpoint(normalised, allow_http=False, sts=True)


@pytest.mark.parametrize(
    "url",
    [
        "",
        " ",
        HOST,
        f"//{HOST}",
        f"ftp://{HOST}",
        f"file:///{HOST}",
        "https://",
        "https:///topics",
        "https://:443",
        f" https://{HOST}",
        f"https://{HOST} ",
        f"https://{HOST}\r\nX: 1",
        f"https://{HOST}\t",
        f"https://{HOST}/topics",
        f"https://{HOST}//",
        f"https://{HOST}/..",
        f"https://{HOST}?",
        f"https://{HOST}?ns=other",
        f"https://{HOST}#",
        f"https://{HOST}#@evil.example",
        f"https://user@{HOST}",
        f"https://user:hunter2hunter2@{HOST}",
        f"https://@{HOST}",
        f"https://{HOST}\\@evil.example",
        f"https://{HOST}%2eevil.example",
        f"https://{HOST}%0d%0aX:1",
        f"https://{HOST}:",
        f"https://{HOST}:0",
        f"https://{HOST}:65536",
        f"https://{HOST}:-1",
        f"https://{HOST}:80a",
        f"https://{HOST}.",
        "https://-a.example",
        "https://a..example",
        "https://.example",
        f"https://{'a' * 64}.example",
        f"https://{'a.' * 130}example",
        "https://\u0430liyuncs.com",
        "https://aliyuncs\u3002com",
        "https://[::1",
        "https://[zz]",
        "https://[v1.x]",
        "https://[127.0.0.1]",
        "https://[example]",
        "https://256.1.1.1",
        "https://1.2.3",
    ],
)
def test_refuse_what_is_no_endpoint(url):
    """Whatever could lead requests elsewhere than it seems is refused, without repeating a password in it."""
    with pytest.raises(ConfigError) as refusal:
        checked_endpoint(url, allow_http=True, sts=False)

    assert "OUTBOX_ENDPOINT" == refusal.value.key
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254",
        "https://169.254.169.254/",
        "https://169.254.0.1:8080",
        "https://100.100.100.200",
        "https://[fe80::1]",
        "https://[::ffff:169.254.169.254]",
        "https://[::ffff:100.100.100.200]",
        "https://192.0.0.192",
        "https://168.63.129.16",
        "https://[fd00:ec2::254]",
        "https://[fd20:ce::254]",
        "https://[::169.254.169.254]",
        "https://[::ffff:0:169.254.169.254]",
        "https://[64:ff9b::169.254.169.254]",
        "https://[64:ff9b:1::100.100.100.200]",
        "https://[2002:a9fe:a9fe::]",
        "https://[2002:6464:64c8:1::7]",
        "https://2852039166",
        "https://0xa9fea9fe",
        "https://0xA9.0xFE.0xA9.0xFE",
        "https://0251.0376.0251.0376",
        "https://169.254.43518",
        "https://169.16689662",
    ],
)
def test_refuse_where_credentials_are_handed_out(url):
    """Link-local and metadata addresses are refused in every spelling that a resolver would take."""
    with pytest.raises(ConfigError, match="OUTBOX_ENDPOINT"):
        checked_endpoint(url, allow_http=True, sts=False)


def test_refuse_http_to_other_machines():
    """Plain http leaves this machine only where the operator says so."""
    with pytest.raises(ConfigError, match="must be https"):
        checked_endpoint(f"http://{HOST}", allow_http=False, sts=False)

    assert f"http://{HOST}" == checked_endpoint(f"http://{HOST}", allow_http=True, sts=False)


def test_refuse_http_with_a_security_token():
    """The token is not covered by the signature: in plain text it would be given away, whatever is allowed."""
    with pytest.raises(ConfigError, match="security token"):
        checked_endpoint(f"http://{HOST}", allow_http=True, sts=True)

    assert "http://127.0.0.1:8080" == checked_endpoint("http://127.0.0.1:8080", allow_http=False, sts=True)


@pytest.mark.parametrize(
    ("address", "forbidden"),
    [
        ("169.254.169.254", True),
        ("100.100.100.200", True),
        ("fe80::1%eth0", True),
        ("::ffff:169.254.169.254", True),
        ("fd00:ec2::254", True),
        ("64:ff9b::a9fe:a9fe%1", True),
        ("2002:a9fe:a9fe::1", True),
        ("127.0.0.1", False),
        ("::1", False),
        ("::", False),
        ("2002:a00:1::", False),
        ("64:ff9b::a00:1", False),
        ("fd00:ec2::253", False),
        ("2001:db8::a9fe:a9fe", False),
        ("10.0.0.1", False),
        ("100.100.100.201", False),
    ],
)
def test_forbid_resolved_addresses(address, forbidden):
    """The same rule for what a name resolves to."""
    assert forbidden is is_forbidden_address(address)
