"""What is known of servos and materials before any recording: tables by part number, every number with its source.

In: a part number, or two materials. Out: published facts, and ranges made of them by stated rules.
"""

from flyball.calibration.priors.materials import FrictionPrior, friction
from flyball.calibration.priors.servos import OperatingPoint, PublishedFit, Range, ServoPrior, parts, prior

__all__ = ["FrictionPrior", "OperatingPoint", "PublishedFit", "Range", "ServoPrior", "friction", "parts", "prior"]
