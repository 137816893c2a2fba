"""Calibration: scenes that behave as the recordings do, with honest uncertainty.

In: a scene with parameters, episodes. Out: a ``Calibration``: joint samples of the parameters, what the data can and
cannot identify, held-out error before and after; and failures replayed in the calibrated scene.
"""
