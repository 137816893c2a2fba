"""The report card of an engine: closed-form mechanics, run through the engine's own interface.

In: an engine. Out: one ``Mark`` per law: what was measured, the tolerance that was declared beforehand with its reason,
and passed, failed or unsupported. A law that an engine cannot be asked about (it lacks a feature) is no failure.

The laws are textbook mechanics; the scenes are a few lines of MJCF each. Errors of the integrator are part of what is
measured: where a tolerance follows from the time step, it says so.
"""

from flyball.engines.card.card import Card, Finding, Law, Mark
from flyball.engines.card.laws import LAWS, examine

__all__ = ["LAWS", "Card", "Finding", "Law", "Mark", "examine"]
