"""Physics engines behind one narrow interface.

In: a ``Scene`` and a number of worlds. Out: a ``Simulation`` that steps, reads, saves and restores. No task, no reward,
no trainer. A new engine is one folder plus an entry in the ``flyball.engines`` table.
"""

from flyball.engines.engine import Engine, Level, Reduce, Simulation, engines
from flyball.engines.portable import JointLayout, Layout, PortableState

__all__ = ["Engine", "JointLayout", "Layout", "Level", "PortableState", "Reduce", "Simulation", "engines"]
