"""The fold of the log without a worker: to rebuild a Redis, to check one, to make a snapshot.

Nothing here sends anything: events, effects and messages are what the owners of live homes send.
"""
