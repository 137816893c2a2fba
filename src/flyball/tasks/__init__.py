"""Tasks: what is to be done, in which scene, and when it counts as done.

In: a scene, an engine, logged or simulated signals. Out: ``Task`` objects, judgements that are the same on both kinds
of signals, and ``World``, the batch of simulated robots that everything else runs on. A new task is one file in
``zoo/`` (or any package with a ``flyball.tasks`` entry point).
"""

from flyball.tasks.task import Judgement, Task, tasks

__all__ = ["Judgement", "Task", "tasks"]
