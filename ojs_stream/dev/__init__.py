"""The embedded stack: a real Kafka and a real Redis as child processes, for ``ojs-stream dev`` and the tests.

It needs the extra ``ojs-stream[dev]`` and nothing that is installed system-wide. It is never part of a
production server: the worker knows only ``KAFKA_BROKERS`` and ``REDIS_URL``.
"""
