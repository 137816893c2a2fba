"""A catalogue, planted episodes in it, and exports of them."""

from __future__ import annotations

import pytest

from flyball.base.store import Store
from flyball.episodes.catalogue import Catalogue
from flyball.episodes.datasets.layout import TableOptions, plan
from flyball.episodes.datasets.lerobot import export
from flyball.episodes.datasets.testing import START_NS, planted_episode
from flyball.episodes.datasets.versions import Datasets


def filled(catalogue, count, *, first=0, **facts):
    """Add episodes with seeds ``first``, ...; returns their digests."""
    digests = []
    for seed in range(first, first + count):
        e = planted_episode(catalogue.store, seed, **{"n": 30 + seed, **facts})
        for f in e.frames.values():
            catalogue.store.register("frames", f.blob, producer="test")
        digests.append(catalogue.add(e, producer="test").digest)
    return digests


@pytest.fixture
def catalogue(tmp_path):
    """An empty catalogue."""
    (tmp_path / "space").mkdir()
    return Catalogue(Store(tmp_path / "space", clock_ns=lambda: START_NS))


@pytest.fixture
def datasets(catalogue):
    """Its datasets."""
    return Datasets(catalogue)


@pytest.fixture
def fill(catalogue):
    """``fill(count, first=0, **facts)`` adds planted episodes and returns their digests."""
    return lambda count, **facts: filled(catalogue, count, **facts)


class Exported:
    """Three episodes with two cameras and two instructions, and their exports; made once."""

    def __init__(self, root):
        (root / "space").mkdir()
        self.root = root
        self.catalogue = Catalogue(Store(root / "space", clock_ns=lambda: START_NS))
        self.store = self.catalogue.store
        cameras = (("front", "jpeg"), ("wrist", "h264"))
        for seed in range(3):
            text = ("pick the box", "wave")[seed % 2]
            filled(self.catalogue, 1, first=seed, cameras=cameras, instruction=text, labels={"kp": 1.5})
        self.datasets = Datasets(self.catalogue)
        self.version = self.datasets.build("planted")
        self.dataset = self.datasets.load(self.version)
        self.made = {}

    def folder(self, version="v3.0", **options):
        """(folder, report) of an export."""
        key = (version, tuple(sorted(options.items())))
        if key not in self.made:
            folder = self.root / f"export{len(self.made)}"
            layout = plan(self.store, self.dataset, TableOptions(**options))
            self.made[key] = folder, export(self.store, self.dataset, layout, folder, version=version)
        return self.made[key]


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Planted episodes and their exports, not to be changed."""
    return Exported(tmp_path_factory.mktemp("exported"))
