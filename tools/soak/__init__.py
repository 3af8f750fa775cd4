"""The long run: half of the measured capacity for half an hour, and nothing may grow."""
