"""Robots: those that Flyball builds from primitives, and those of others that are found on this machine.

In: nothing, or where to look. Out: embodiments by name, and ``FoundModel``: models of installed packages and local
folders with their licences, none of them shipped with Flyball (``flyball.robots.zoo.found``). Embodiments of other
packages come by the entry-point group ``flyball.embodiments``, sources of models by ``flyball.zoo``.
"""

from flyball.base import PluginTable

embodiments = PluginTable(
    "embodiment",
    "flyball.embodiments",
    {
        "flyarm-5": "flyball.robots.zoo.flyarm:FLYARM",
        "flycell-10": "flyball.robots.zoo.flycell:FLYCELL",
        "flybase-2": "flyball.robots.zoo.flybase:FLYBASE",
        "flyquad-12": "flyball.robots.zoo.flyquad:FLYQUAD",
    },
)
