"""Where the log and the state are, as the command line has it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Self

from ojs_stream.log.connection import Bootstrap
from ojs_stream.settings import Settings


@dataclass(frozen=True, slots=True)
class Place:
    """Where the log and the state are."""

    brokers: Bootstrap
    redis_url: str
    namespace: str

    def checked(self) -> Self:
        """As the settings of a worker would have it; ``SettingsError`` when one is wrong."""
        given = {"KAFKA_BROKERS": str(self.brokers), "REDIS_URL": self.redis_url, "OJS_NAMESPACE": self.namespace}
        settings = Settings.from_env({**os.environ, **given})
        return type(self)(settings.kafka, settings.redis_url, settings.namespace)
