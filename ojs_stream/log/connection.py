"""How to reach Kafka: brokers and credentials, and the one place that makes the arguments of a client.

Every client of ours (producers, readers, intake, admin, tools) and Faust's consumer connect by it.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka.abc import AbstractTokenProvider

from ojs_stream.errors import SettingsError

PLAINTEXT = "PLAINTEXT"
SSL = "SSL"
SASL_PLAINTEXT = "SASL_PLAINTEXT"
SASL_SSL = "SASL_SSL"
PROTOCOLS = (PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL)
PLAIN = "PLAIN"
OAUTHBEARER = "OAUTHBEARER"
MECHANISMS = (PLAIN, "SCRAM-SHA-256", "SCRAM-SHA-512", OAUTHBEARER)


class TokenFile(AbstractTokenProvider):  # type: ignore[misc]
    """A bearer token that somebody else keeps fresh in a file (as Kubernetes does): read at every connection."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def token(self) -> str:
        """The token of now."""
        return (await asyncio.to_thread(self._path.read_text)).strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """What Kafka wants to see before it talks to us. The files are read when a client is made."""

    protocol: str = PLAINTEXT
    mechanism: str = PLAIN
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    key_password: str | None = field(default=None, repr=False)
    check_hostname: bool = True

    @property
    def encrypted(self) -> bool:
        """Whether the connection is TLS."""
        return self.protocol in {SSL, SASL_SSL}

    @property
    def authenticated(self) -> bool:
        """Whether SASL says who we are; mTLS does without."""
        return self.protocol in {SASL_PLAINTEXT, SASL_SSL}

    def ssl_context(self) -> ssl.SSLContext | None:
        """For TLS, with the client's certificate if there is one. ``SettingsError`` when a file is of no use."""
        if not self.encrypted:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file, self.key_password or "")
        except OSError as error:
            files = ", ".join(str(path) for path in (self.ca_file, self.cert_file, self.key_file) if path)
            raise SettingsError(
                f"KAFKA_SSL_CA_FILE, KAFKA_SSL_CERT_FILE and KAFKA_SSL_KEY_FILE ({files}) must be PEM files that "
                f"belong together: {error}; check them and KAFKA_SSL_KEY_PASSWORD."
            ) from error
        context.check_hostname = self.check_hostname
        return context

    def token_provider(self) -> TokenFile | None:
        """For OAUTHBEARER."""
        return None if self.token_file is None else TokenFile(self.token_file)


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """Brokers and how to be let in. Its text is the brokers alone: it may stand in any sentence."""

    brokers: str
    security: Security = Security()

    def __str__(self) -> str:
        return self.brokers


Bootstrap = str | KafkaAddress
"""A text stands for brokers that let everybody in."""


def client_arguments(bootstrap: Bootstrap) -> dict[str, Any]:
    """What every aiokafka client is given to connect."""
    if isinstance(bootstrap, str):
        bootstrap = KafkaAddress(bootstrap)
    security = bootstrap.security
    arguments: dict[str, Any] = {
        "bootstrap_servers": bootstrap.brokers,
        "security_protocol": security.protocol,
        "ssl_context": security.ssl_context(),
    }
    return arguments | _sasl(security) if security.authenticated else arguments


def _sasl(security: Security) -> dict[str, Any]:
    if security.mechanism == OAUTHBEARER:
        return {"sasl_mechanism": OAUTHBEARER, "sasl_oauth_token_provider": security.token_provider()}
    return {
        "sasl_mechanism": security.mechanism,
        "sasl_plain_username": security.username,
        "sasl_plain_password": security.password,
    }
