"""Webhooks over TLS: a certificate that nobody vouches for, or that is another host's, ends the attempt unsent."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.core.requests.webhooks import Webhook
from backend.services.outbound.targets import OutboundRules
from backend.services.webhooks.retries import RetrySchedule
from backend.store.clients.deliveries import Delivery
from tests.services.webhooks.receiver import Receiver
from tests.services.webhooks.test_delivery import Office

LOOPBACK = ipaddress.ip_address("127.0.0.1")
RULES = OutboundRules(("*",), (ipaddress.ip_network("127.0.0.0/8"),))
#: Signed by itself, for `hook.example`, until 2126; its key protects nothing.
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgsvCrCdSzEXgpMI8h
6lgUZNQE2+rmNJJd2wGu65rk+9yhRANCAARTaFAYKo5/h89VR0lMq91N/uhuoyGK
82FKC/M6veOPX/9mGQhfoUHRjd9R1uiaWXzjxHQlepaMX2a51fO+YSBx
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBpDCCAUqgAwIBAgIULKEwdTs2P2bf/tuTNj4Ox8VdWHswCgYIKoZIzj0EAwIw
GjEYMBYGA1UEAwwPYSB0ZXN0IG9mIHdhbjIyMCAXDTI2MTEyODAzMDQwM1oYDzIx
MjYxMTA0MDMwNDAzWjAaMRgwFgYDVQQDDA9hIHRlc3Qgb2Ygd2FuMjIwWTATBgcq
hkjOPQIBBggqhkjOPQMBBwNCAARTaFAYKo5/h89VR0lMq91N/uhuoyGK82FKC/M6
veOPX/9mGQhfoUHRjd9R1uiaWXzjxHQlepaMX2a51fO+YSBxo2wwajAdBgNVHQ4E
FgQUfwCWJltUd2SVOCcColCSZ82Y7e4wHwYDVR0jBBgwFoAUfwCWJltUd2SVOCcC
olCSZ82Y7e4wDwYDVR0TAQH/BAUwAwEB/zAXBgNVHREEEDAOggxob29rLmV4YW1w
bGUwCgYIKoZIzj0EAwIDSAAwRQIhAKKaSJalo1dn8MfjW+7Bpe2F6TJJCGskv9k9
8RAm8NI7AiAWbH29j8Axw4Jz9g2sleGxe3ik9OPZkt+2QLsZYe69qA==
-----END CERTIFICATE-----
"""


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    file = tmp_path / "certificate.pem"
    file.write_text(CERTIFICATE)
    return file


@pytest.fixture
def receiver(certificate: Path) -> Iterator[Receiver]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    made = Receiver(tls=context)
    yield made
    made.close()


def sent(tmp_path: Path, host: str, receiver: Receiver) -> Delivery:
    """Send one message to a host that is at the receiver's address; return what became of it."""
    office = Office(tmp_path / "home")
    office.finish(Webhook(f"https://{host}:{receiver.port}/"))
    office.send(office.sender(RetrySchedule((60.0,)), seconds=10.0, rules=RULES, resolve=lambda *_: (LOOPBACK,)))
    [one] = office.store.list()
    office.database.close()
    return one


@pytest.mark.parametrize(("trusted", "host"), [(False, "hook.example"), (True, "other.example")])
def test_a_certificate_that_does_not_prove_the_host_is_refused(
    tmp_path: Path, certificate: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, trusted: bool, host: str
) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    one = sent(tmp_path, host, receiver)
    assert one.reason == "its encryption or its certificate is not accepted"
    assert (one.attempts, receiver.requests) == (1, [])


def test_a_certificate_of_the_host_that_the_system_trusts_is_accepted(
    tmp_path: Path, certificate: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert sent(tmp_path, "hook.example", receiver).status == 200
    assert len(receiver.requests) == 1
