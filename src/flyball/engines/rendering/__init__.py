"""Pictures of worlds: rgb, depth, segmentation, normals, optical flow.

In: a model, the joint positions of n worlds, a ``Camera``. Out: arrays per kind, the same for a world alone and in a
batch. The way of drawing is chosen for the user: OpenGL through EGL (hardware or software) or OSMesa, the Warp ray
tracer, which needs no OpenGL, or MuJoCo's ray casts, which need nothing and draw labels only. Nothing here touches
OpenGL before a picture is asked for.
"""

from flyball.engines import mujoco as _mujoco  # noqa: F401  explains a MUJOCO_GL that does not work
from flyball.engines.rendering.backends import Found, available, choose
from flyball.engines.rendering.picture import write_png
from flyball.engines.rendering.renderer import KINDS, Kind, Renderer, model_cameras

__all__ = [
    "KINDS",
    "Found",
    "Kind",
    "Renderer",
    "available",
    "choose",
    "model_cameras",
    "write_png",
]
