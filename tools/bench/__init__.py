"""The bench: requests per second of one worker, as ratios to a floor measured in the same run.

The floor is a bare aiohttp + uvloop POST echo, hit by the same client at the same number of connections.
Ratios travel between machines much better than figures do; the figures are for those who know the machine.
"""
