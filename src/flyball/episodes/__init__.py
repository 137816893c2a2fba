"""Episodes and datasets: what happened, as data.

In: logs in any registered format. Out: ``Episode`` objects in the workspace's store and catalogue, ``Dataset``
objects that name them. No simulator, trainer or cluster is imported here.
"""

from flyball.episodes.dataset import Dataset
from flyball.episodes.episode import Episode, Event, Origin, Outcome

__all__ = ["Dataset", "Episode", "Event", "Origin", "Outcome"]
