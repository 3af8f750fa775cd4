"""Real processes under seeded faults: kill anything, wipe anything, and look whether a promise broke."""
