"""Flyball closes a loop around a robot fleet: logs in, better policies out.

Nothing heavy is imported here; import the package you need (``flyball.episodes``, ``flyball.engines``, ...).
"""

__version__ = "0.1.0"
