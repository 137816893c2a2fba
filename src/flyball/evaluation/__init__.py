"""Evaluation: comparisons and verdicts with stated error rates. In: outcomes. Out: intervals, verdicts, reports."""
