r"""Does LeRobot itself read what we export? ``make FOLDER`` here, ``check FOLDER`` where lerobot 0.4.4 is installed.

``make`` exports planted episodes (numbers alone, two cameras, several tasks; v3.0 and v2.1; h264, av1 and PNG) beside a
reference of what went in. ``check`` needs nothing of ours: lerobot's own class loads every folder (v2.1 after lerobot's
own converter), every item is compared bit by bit with the reference, and pictures within a codec's error. An
environment for it, without the packages that lerobot's dataset class does not need:

    python -m venv E && E/bin/pip install torch==2.13.0 && E/bin/pip install --no-deps lerobot==0.4.4
    E/bin/pip install "numpy<2.4" "datasets>=4,<4.9" "huggingface-hub<0.36" "av>=15,<16" jsonlines packaging einops \
        draccus==0.10.0 deepdiff termcolor imageio accelerate pillow pandas pyarrow
    E/bin/python benchmarks/lerobot_oracle.py check FOLDER

lerobot 0.3.3 reads v2.1 by itself: put its files, those of datasets 3.6.0, fsspec 2025.3.0, dill 0.3.8 and multiprocess
0.70.16 first (``pip install --no-deps --target OLD ...``, ``PYTHONPATH=OLD``), and ``check`` looks at the v2.1 folders.

``check`` stands in for torchvision (a tensor of a picture, and a decoder over PyAV), which lerobot imports and whose
video reader is gone; the reading of tables, episodes, tasks, windows and timestamps is lerobot's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np

PSNR = 30.0
"""Least peak signal to noise of smooth pictures after a codec [dB]; a wrong picture of these has less than 20."""


def make(folder: Path, episodes: int) -> None:
    """Plant episodes and export them in every way."""
    from flyball.base.store import Store
    from flyball.episodes.catalogue import Catalogue
    from flyball.episodes.datasets.layout import TableOptions, plan
    from flyball.episodes.datasets.lerobot import export
    from flyball.episodes.datasets.stored import open_episode
    from flyball.episodes.datasets.stored import pictures as decoded
    from flyball.episodes.datasets.table import Sampler
    from flyball.episodes.datasets.testing import planted_episode
    from flyball.episodes.datasets.versions import Datasets

    (folder / "space").mkdir(parents=True)
    catalogue = Catalogue(Store(folder / "space"))
    for seed in range(episodes):
        cameras = (("front", "jpeg"), ("wrist", "h264"))
        facts = {"instruction": ("pick the box", "place the box", "wave")[seed % 3], "n": 30 + seed}
        catalogue.add(planted_episode(catalogue.store, seed, cameras=cameras, **facts), producer="oracle")
    datasets = Datasets(catalogue)
    dataset = datasets.load(datasets.build("planted"))
    cases = {
        "numbers": TableOptions(images="none"),
        "two_cameras_h264": TableOptions(),
        "two_cameras_av1": TableOptions(codec="av1"),
        "two_cameras_png": TableOptions(images="png"),
    }
    for name, options in cases.items():
        layout = plan(catalogue.store, dataset, options)
        for version in ("v3.0", "v2.1"):
            target = folder / f"{name}_{version}"
            export(catalogue.store, dataset, layout, target, version=version)
        sampler, rows = Sampler(layout), {f.key: [] for f in layout.features}
        tasks: list[str] = []
        for digest in dataset.episodes:
            episode = open_episode(catalogue.store, digest)
            table = sampler.table(episode, where=digest)
            tasks += [episode.instruction] * table.length
            for f in layout.features:
                if f.kind == "numbers":
                    rows[f.key].append(table.columns[f.key])
                else:
                    frames = episode.frames[f.signals[0].name]
                    rows[f.key].append(np.stack(list(decoded(catalogue.store, frames, table.pictures[f.key]))))
        np.savez(folder / f"{name}.npz", __tasks__=np.array(tasks), **{k: np.concatenate(v) for k, v in rows.items()})
    print(f"{2 * len(cases)} folders of {episodes} episodes in {folder}")


def stand_in_for_torchvision() -> None:
    """What lerobot's dataset class needs of torchvision."""
    import torch

    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.v2")
    tv, transforms, v2 = (types.ModuleType(n) for n in names)

    class ToTensor:
        def __call__(self, picture: Any) -> Any:
            return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 255

    v2.Transform, v2.functional = object, types.SimpleNamespace()
    transforms.ToTensor, transforms.v2, tv.transforms, tv.io = ToTensor, v2, transforms, types.SimpleNamespace()
    for module in (tv, transforms, v2):
        module.__spec__ = ModuleSpec(module.__name__, None)
    sys.modules |= dict(zip(names, (tv, transforms, v2), strict=True))


def decoder(path: Any, timestamps: list[float], tolerance_s: float, backend: str | None = None) -> Any:
    """lerobot's pyav decoder, on PyAV itself: the pictures nearest to some times, none further than the tolerance."""
    import av
    import torch

    loaded, times = [], []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        container.seek(int(max(0.0, min(timestamps) - 1e-3) / stream.time_base), stream=stream, backward=True)
        for frame in container.decode(stream):
            loaded.append(frame)
            times.append(float(frame.pts * stream.time_base))
            if times[-1] >= max(timestamps):
                break
    distance = torch.cdist(torch.tensor(timestamps)[:, None], torch.tensor(times)[:, None], p=1)
    nearest, which = distance.min(1)
    assert (nearest < tolerance_s).all(), f"no picture within {tolerance_s} s of {timestamps}"
    pictures = np.stack([loaded[i].to_ndarray(format="rgb24") for i in which.tolist()])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255


def open_with_lerobot(folder: Path, **options: Any) -> Any:
    """lerobot's own class on a v3.0 folder, or on a v2.1 folder that lerobot converts first (a copy of it)."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    os.environ.setdefault("HF_DATASETS_CACHE", str(folder.parent / "cache"))
    if "torchvision" not in sys.modules:
        stand_in_for_torchvision()
    import lerobot.datasets.lerobot_dataset as lr

    lr.decode_video_frames = decoder
    if (
        lr.CODEBASE_VERSION == "v3.0"
        and json.loads((folder / "meta/info.json").read_text())["codebase_version"] == "v2.1"
    ):
        from lerobot.datasets.v30 import convert_dataset_v21_to_v30 as convert

        copy = folder.parent / f"{folder.name}_converted"
        if not copy.exists():
            shutil.copytree(folder, copy)
            convert.convert_dataset(copy.name, root=str(copy.parent), push_to_hub=False)
        folder = copy
    return lr.LeRobotDataset("planted/planted", root=folder, video_backend="pyav", **options)


def check(folder: Path) -> bool:
    """Compare every folder with its reference; prints one line each."""
    good = True
    native = any("0.3." in p.name for q in sys.path for p in Path(q or ".").glob("lerobot-0.3.*.dist-info"))
    for reference in sorted(folder.glob("*.npz")):
        wanted = dict(np.load(reference))
        tasks = wanted.pop("__tasks__")
        for version in ("v2.1",) if native else ("v3.0", "v2.1"):
            place = folder / f"{reference.stem}_{version}"
            try:
                line = compare(place, wanted, tasks)
            except Exception as err:  # whatever lerobot raises is the answer
                line, good = f"FAILED {type(err).__name__}: {err}", False
            print(f"{place.name:28} {line}", flush=True)
    return good


def compare(place: Path, wanted: dict[str, np.ndarray], tasks: np.ndarray) -> str:
    """Every item of a folder against what went in.

    Raises:
      AssertionError: something differs.
    """
    ds = open_with_lerobot(place)
    n = len(tasks)
    assert len(ds) == n, f"{len(ds)} rows, {n} went in"
    worst = np.inf
    for i in range(n):
        item = ds[i]
        assert item["task"] == tasks[i], f"row {i}: task {item['task']!r}"
        assert item["timestamp"].item() == np.float32(item["frame_index"].item() / ds.fps), f"row {i}: time"
        for key, values in wanted.items():
            if values.ndim == 4 and values.dtype == np.uint8:
                got = item[key].numpy().transpose(1, 2, 0) * 255.0
                mse = np.mean((got - values[i]) ** 2)
                worst = min(worst, np.inf if mse < 1e-6 else 10 * np.log10(255**2 / mse))
            else:
                got = item[key].numpy()
                same = got.reshape(values[i].shape).astype(values.dtype).tobytes() == values[i].tobytes()
                kept = got.dtype == values.dtype or values.dtype.kind != "f"  # lerobot widens integers
                assert same and kept, f"row {i}: {key} is {got}, not {values[i]}"
    assert worst > PSNR, f"pictures at {worst:.1f} dB"
    # windows across an episode's end are lerobot's to cut; a subset must still find its pictures
    first = int(ds.meta.episodes[0]["length"])
    windows = open_with_lerobot(place, delta_timestamps={"action": [k / ds.fps for k in range(8)]})
    item = windows[first - 3]
    assert item["action_is_pad"].tolist() == [False] * 3 + [True] * 5
    assert item["action"][:3].numpy().tobytes() == wanted["action"][first - 3 : first].tobytes()
    subset = open_with_lerobot(place, episodes=[1])
    assert subset[0]["observation.state"].numpy().tobytes() == wanted["observation.state"][first].tobytes()
    stats = ds.meta.stats
    for key in ("observation.state", "action"):
        exact = np.quantile(wanted[key].astype(np.float64), 0.01, axis=0)
        if "q01" in stats[key] and "converted" not in str(ds.root):
            assert np.allclose(stats[key]["q01"], exact, rtol=1e-12), f"{key}: q01"
    seen = any(v.ndim == 4 for v in wanted.values())
    pictures = f"pictures >= {worst:.1f} dB" if seen else "no pictures"
    return f"ok: {n} rows bit-equal, {len(set(tasks))} tasks, {pictures}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("make", "check"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--episodes", type=int, default=5)
    args = parser.parse_args()
    if args.what == "make":
        make(args.folder, args.episodes)
        return 0
    return 0 if check(args.folder.absolute()) else 1


if __name__ == "__main__":
    sys.exit(main())
