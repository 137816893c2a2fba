"""Evaluation: comparisons and verdicts with stated error rates.

In: outcomes of trials. Out: intervals, verdicts that may be read after every trial, reports. No simulator is needed.
"""

from flyball.evaluation.protocol import Protocol
from flyball.evaluation.report import EvaluationReport, TrialRow, locked_environment
from flyball.evaluation.statistics import (
    Interval,
    anytime_interval,
    clopper_pearson,
    cluster_interval,
    difference_interval,
    equivalent,
    holm,
    mcnemar,
    wilson,
)
from flyball.evaluation.verdicts import CanaryVerdict, ComparisonRule, PairedComparison

__all__ = [
    "CanaryVerdict",
    "ComparisonRule",
    "EvaluationReport",
    "Interval",
    "PairedComparison",
    "Protocol",
    "TrialRow",
    "anytime_interval",
    "clopper_pearson",
    "cluster_interval",
    "difference_interval",
    "equivalent",
    "holm",
    "locked_environment",
    "mcnemar",
    "wilson",
]
