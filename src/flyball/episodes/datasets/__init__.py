"""Datasets: versions of lists of episodes, tables made of them, and LeRobot's folders in both directions.

In: the catalogue. Out: named, immutable versions (``versions``), tables at a fixed rate (``layout``, ``table``),
LeRobotDataset folders (``lerobot`` writes, ``folder`` reads), differences and proofs (``compare``, ``verify``), and
windows for learning (``loader``). Needs the extra ``logs`` for files, numpy alone for windows.
"""
