"""The demo: every file of the Python standard library goes through the server as a job, and all is checked.

In its second act one batch workflow hashes up to a thousand of them, and its callback adds all results up.

It is a client like any other: HTTP for the jobs, plain aiokafka for the events. It imports nothing of the
server but the embedded stack, and that only when no server is running.
"""
