"""URDF joints and chains of them.

In: a joint's element with its numbers read. Out: where the body at the end of a chain of joints stands, and where each
joint of the chain lies in that body's frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np

from flyball.robots.models.model import Array
from flyball.robots.models.rotations import multiply, rotation


@dataclass
class Joint:
    """A URDF joint, its numbers read."""

    element: Element
    name: str
    kind: str
    parent: str
    child: str
    pos: Array
    quat: Array


def joined(chain: list[Joint]) -> tuple[Array, Array, list[tuple[Array, Array]]]:
    """Pose of the body at the end of a chain of joints, and each joint's anchor and turn into the body's frame."""
    pos, r, quat = np.zeros(3), np.eye(3), np.array([1.0, 0, 0, 0])  # the body in the frame of the joint at hand
    frames: list[tuple[Array, Array]] = []
    for j in reversed(chain):
        anchor = -r.T @ pos
        frames.insert(0, (np.where(np.abs(anchor) < 1e-15, 0.0, anchor), r.T.copy()))
        pos = j.pos + rotation(j.quat) @ pos
        r, quat = rotation(j.quat) @ r, multiply(j.quat, quat)
    return pos, quat, frames
