"""Ways in: the command line, the report. No logic, only calls."""
