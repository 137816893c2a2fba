"""Engines in processes of their own, with environments of their own, behind the same interface.

In: the name of an engine and an interpreter. Out: a ``RemoteEngine``. Which names mean such an engine is said in
``flyball.toml``; see ``configured``.
"""

from flyball.engines.remote.engine import RemoteEngine, RemoteSimulation

__all__ = ["RemoteEngine", "RemoteSimulation"]
