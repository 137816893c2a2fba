"""Meshes of deformables are what they say: sizes, volumes, pins; engines without them refuse the scene by name."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.base import InputError, Unsupported
from flyball.scenes import Scene
from flyball.scenes.deformable import Cloth, Granular, Soft

cells = st.integers(1, 4)
TURNED = (0.8, 0.0, 0.6, 0.0)


@given(cells, cells)
def test_triangles_cover_the_sheet_and_face_one_way(nx, ny):
    points, triangles = Cloth("c", size=(0.3, 0.2), cells=(nx, ny)).mesh()
    a, b, c = points[triangles].swapaxes(0, 1)
    normal = np.cross(b - a, c - a)
    assert points.shape == ((nx + 1) * (ny + 1), 3) and len(triangles) == 2 * nx * ny
    assert (normal[:, 2] > 0).all() and normal[:, 2].sum() / 2 == pytest.approx(0.06)


@given(cells, cells, cells)
def test_tetrahedra_fill_the_block_without_gap_or_overlap(nx, ny, nz):
    points, tets = Soft("s", size=(0.1, 0.2, 0.3), cells=(nx, ny, nz), position=(1, 2, 3), quat=TURNED).mesh()
    a, b, c, d = points[tets].swapaxes(0, 1)
    volume = np.einsum("ij,ij->i", np.cross(b - a, c - a), d - a) / 6
    assert (volume > 0).all() and volume.sum() == pytest.approx(0.006)
    faces = np.sort(np.concatenate([np.delete(tets, k, axis=1) for k in range(4)]), axis=1)
    _, times = np.unique(faces, axis=0, return_counts=True)
    assert times.max() <= 2  # neighbouring cells share whole faces
    assert (times == 1).sum() == 4 * (nx * ny + ny * nz + nx * nz)  # two triangles on every outer square


def test_pins_are_where_they_are_said_to_be():
    cloth = Cloth("c", size=(0.3, 0.2), cells=(3, 2), pinned="top")
    assert np.allclose(cloth.mesh()[0][cloth.fixed(), 1], 0.2) and len(cloth.fixed()) == 4
    corners = Cloth("c", size=(0.3, 0.2), cells=(3, 2), pinned="corners")
    assert np.allclose(corners.mesh()[0][corners.fixed()], [[0, 0.2, 0], [0.3, 0.2, 0]])
    block = Soft("s", cells=(2, 3, 4), pinned="bottom")
    assert np.allclose(block.mesh()[0][block.fixed(), 2], 0) and len(block.fixed()) == 12


def test_grains_stay_in_their_block_and_are_the_same_every_time():
    grains = Granular("g", position=(1, 0, 0), size=(0.1, 0.06, 0.04), spacing=0.02, jitter=0.5)
    points = grains.points()
    assert points.shape == (5 * 3 * 2, 3)
    assert (points > [1, 0, 0]).all() and (points < [1.1, 0.06, 0.04]).all()
    np.testing.assert_array_equal(points, grains.points())
    assert not np.array_equal(points, Granular("g", position=(1, 0, 0), size=(0.1, 0.06, 0.04), seed=1).points())


@pytest.mark.parametrize(
    "make",
    [
        lambda: Cloth("", size=(1, 1)),
        lambda: Cloth("c", size=(1, -1)),
        lambda: Cloth("c", density=float("nan")),
        lambda: Soft("s", poisson=0.5),
        lambda: Soft("s", cells=(1, 0, 1)),
        lambda: Granular("g", spacing=0.0),
        lambda: Granular("g", jitter=1.0),
    ],
)
def test_nonsense_is_refused(make):
    with pytest.raises(InputError):
        make()


def test_an_engine_without_deformables_refuses_the_scene():
    pytest.importorskip("mujoco")
    from flyball.engines.mujoco import MujocoEngine

    with pytest.raises(Unsupported, match="cloth 'flag'"):
        Scene("s", "<mujoco/>", (), deformables=(Cloth("flag"),)).rigid_only("engine mujoco")
    with pytest.raises(Unsupported, match="cloth 'flag'"):
        MujocoEngine().open(Scene("s", "<mujoco/>", (), deformables=(Cloth("flag"),)), 1)
