"""Robots that ship with Flyball, and the table of all there are; others come by entry point ``flyball.embodiments``."""

from flyball.base import PluginTable

embodiments = PluginTable("embodiment", "flyball.embodiments", {"flyarm-5": "flyball.robots.zoo.flyarm:FLYARM"})
