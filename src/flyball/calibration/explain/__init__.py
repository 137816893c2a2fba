"""Why an attempt failed, and what would have made it succeed.

In: a failed attempt, the policy that acted and what it was told, joint samples of what is believed of the robot. Out:
an ``Explanation``: whether the simulation fails alike, what deviates from what was believed, the least changes that
would have turned the failure into a success, in closed loop with the policy; a crash test and a range to train on.
Nobody's hidden truth is read: everything comes from the log, the calibration and replays.
"""

from flyball.calibration.explain.case import Case
from flyball.calibration.explain.crash import CrashTest
from flyball.calibration.explain.explainer import explain
from flyball.calibration.explain.explanation import Explanation

__all__ = ["Case", "CrashTest", "Explanation", "explain"]
