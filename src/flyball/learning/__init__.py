"""Learning: one folder per method. In: demonstrations. Out: a policy file that runs without a trainer.

Nothing here loads torch until a method is asked for: ``from flyball.learning.flow import FlowConfig, train``.
"""

from flyball.learning.recipe import Progress, Recipe, TrainedPolicy, recipes

__all__ = ["Progress", "Recipe", "TrainedPolicy", "recipes"]
