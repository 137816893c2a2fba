"""Pages for people. In: documents. Out: self-contained HTML. No logic, no JavaScript."""
