"""Timers submit ticks; they never write (DESIGN.md section 9)."""
