"""Demonstrations made in simulation.

In: a task, distributions over its parameters, an expert. Out: windows of observations and action chunks to learn from.
"""
