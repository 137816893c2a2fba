"""MuJoCo Warp, and Newton's solvers: rigid bodies, cloth, soft bodies, grains, on a CPU or a GPU.

In: a scene's MJCF and its deformables. Out: a ``Simulation`` of n worlds. Each solver is an engine of its own, which
declares what it does exactly, approximately or not at all; asking for what it lacks is an error that names it.
"""
