"""OpenUSD: models written and read, scenes composed of parts that know nothing of each other.

In: imported models, USD files, parts to compose. Out: validated .usda, .usdc and .usdz files that any USD viewer opens,
and MJCF with every conversion and loss in words. OpenUSD itself is loaded when it is needed (extra ``usd``).
"""

from flyball.scenes.usd.composition import Part, VariantSet, compose
from flyball.scenes.usd.format import UsdFormat, read_scene
from flyball.scenes.usd.guard import read_guarded

__all__ = ["Part", "UsdFormat", "VariantSet", "compose", "read_guarded", "read_scene"]
