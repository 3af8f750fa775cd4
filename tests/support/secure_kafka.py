"""A real Kafka that lets nobody in without a login or a certificate, and the settings of who may come in."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from ojs_stream.dev.kafka import EmbeddedKafka
from ojs_stream.dev.process import free_port

USER, PASSWORD = "alice", "alice-s3cret"
SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")
LISTENERS = {"LOGIN": "SASL_PLAINTEXT", "TLSLOGIN": "SASL_SSL", "MUTUAL": "SSL"}
_MODULES = "org.apache.kafka.common.security"
_LOGINS = {
    "plain": f'{_MODULES}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";',
    "scram-sha-256": f"{_MODULES}.scram.ScramLoginModule required;",
    "scram-sha-512": f"{_MODULES}.scram.ScramLoginModule required;",
    "oauthbearer": f'{_MODULES}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="ojs";',
}


class SecureKafka:
    """Four listeners: the embedded one for its own look at itself, and one of each way that wants credentials."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.ports = {name: free_port() for name in LISTENERS}
        port = free_port()
        self._certificates()
        users = [f"{mechanism}=[name={USER},password={PASSWORD}]" for mechanism in SCRAM]
        self.broker = EmbeddedKafka(folder / "kafka", port=port, settings=self._settings(port), scram=users)

    def _certificates(self) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.folder / "ca.pem")
        trustme.CA().cert_pem.write_to_path(self.folder / "other-ca.pem")
        for name, identity in (("broker", "127.0.0.1"), ("client", "worker.example")):
            cert = authority.issue_cert(identity)
            key = load_pem_private_key(cert.private_key_pem.bytes(), None)
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            chain = b"".join(blob.bytes() for blob in cert.cert_chain_pems)
            (self.folder / f"{name}.pem").write_bytes(chain)
            (self.folder / f"{name}-key.pem").write_bytes(pem)
            (self.folder / f"{name}-both.pem").write_bytes(pem + chain)

    def _settings(self, port: int) -> dict[str, str]:
        controller = free_port()
        ours = ",".join(f"{name}://127.0.0.1:{at}" for name, at in self.ports.items())
        protocols = ",".join(f"{name}:{protocol}" for name, protocol in LISTENERS.items())
        settings = {
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},{ours}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port},{ours}",
            "listener.security.protocol.map": f"PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,{protocols}",
            "inter.broker.listener.name": "PLAINTEXT",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.folder / "broker-both.pem"),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.folder / "ca.pem"),
            "listener.name.mutual.ssl.client.auth": "required",
        }
        for name in ("login", "tlslogin"):
            settings[f"listener.name.{name}.sasl.enabled.mechanisms"] = ",".join(_LOGINS).upper()
            for mechanism, login in _LOGINS.items():
                settings[f"listener.name.{name}.{mechanism}.sasl.jaas.config"] = login
        return settings

    def env(self, listener: str, mechanism: str = "PLAIN") -> dict[str, str]:
        """What a worker is told to come in there."""
        found = {
            "KAFKA_BROKERS": f"127.0.0.1:{self.ports[listener]}",
            "KAFKA_SECURITY_PROTOCOL": LISTENERS[listener],
        }
        if listener != "LOGIN":
            found["KAFKA_SSL_CA_FILE"] = str(self.folder / "ca.pem")
        if listener == "MUTUAL":
            found["KAFKA_SSL_CERT_FILE"] = str(self.folder / "client.pem")
            found["KAFKA_SSL_KEY_FILE"] = str(self.folder / "client-key.pem")
            return found
        found["KAFKA_SASL_MECHANISM"] = mechanism
        if mechanism == "OAUTHBEARER":
            return found | {"KAFKA_SASL_TOKEN_FILE": str(self._token())}
        return found | {"KAFKA_SASL_USERNAME": USER, "KAFKA_SASL_PASSWORD": PASSWORD}

    def _token(self) -> Path:
        """A token that nobody has signed, which Kafka's validator for development takes."""
        now = int(time.time())
        claims = {"sub": "ojs", "iat": now, "exp": now + 3600}
        parts = [base64.urlsafe_b64encode(json.dumps(part).encode()) for part in ({"alg": "none"}, claims)]
        path = self.folder / "token"
        path.write_bytes(b".".join(part.rstrip(b"=") for part in parts) + b".\n")
        return path
