"""Rigs: physical set-ups whose recordings we can replay.

In: an episode of a real set-up. Out: a ``Replay`` of it in the rig's scene. A new rig is one file here, or a plug-in of
the group ``flyball.rigs``; which rig an episode belongs to is asked of the rigs.
"""

from flyball.calibration.rigs.rig import Fold, Rig, no_recordings, rig_for, rigs

__all__ = ["Fold", "Rig", "no_recordings", "rig_for", "rigs"]
