"""Who reads the log: owners of homes, the round over all of them, the retry and bulk agents."""
