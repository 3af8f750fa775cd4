"""The authoritative records in Redis: keys, load, the fenced commit, checked reads."""
