"""Releases: what may go onto robots, and the signature that says so.

In: a policy, its evaluation reports, the embodiment. Out: a gate's decision and a TUF-signed release.
"""

from flyball.releases.release import Release, release_for

__all__ = ["Release", "release_for"]
