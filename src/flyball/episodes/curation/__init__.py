"""Curation that can be audited: checks on episodes, and their verdicts as rows that can be taken back.

In: episodes of the catalogue. Out: verdicts ``flag``, ``note`` or ``pass`` with reason, version and inputs. Tier 0 says
what is mechanically wrong with a recording, tier 1 how an episode behaved among others. Neither says whether learning
from an episode helps: no score here claims that, because scores that did have not held when they were tested. That is
measured, by training with and without, on paired trials (tier 2, ``flyball.evaluation.value``).
A check outside the tree registers in the entry-point group ``flyball.checks``.
"""

from flyball.episodes.curation.check import Check, Finding, Parameter, Seen, check, checks
from flyball.episodes.curation.curate import Curation, Tally, curate, take_back

__all__ = ["Check", "Curation", "Finding", "Parameter", "Seen", "Tally", "check", "checks", "curate", "take_back"]
