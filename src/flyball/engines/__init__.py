"""Physics engines behind one narrow interface.

In: a ``Scene`` and a number of worlds. Out: a ``Simulation`` that steps, reads, saves and restores. No task, no reward,
no trainer. A new engine is one folder plus an entry in the ``flyball.engines`` table.
"""

from flyball.engines.engine import Engine, Level, Reduce, Simulation, Traits, traits
from flyball.engines.portable import JointLayout, Layout, PortableState
from flyball.engines.table import engines

__all__ = [
    "Engine",
    "JointLayout",
    "Layout",
    "Level",
    "PortableState",
    "Reduce",
    "Simulation",
    "Traits",
    "engines",
    "traits",
]
