"""One actuated joint in numpy, with load-dependent gear friction. In: a scene with one joint. Out: a ``Simulation``."""

from flyball.engines.servo.simulation import ServoEngine, ServoSimulation

__all__ = ["ServoEngine", "ServoSimulation"]
