"""The command line: one file per verb. In: arguments. Out: text or one JSON document, and an exit code. No logic."""
