"""The state machine: pure Python without I/O, clock, dice, logging or settings (DESIGN.md section 2)."""
