"""Do published robot models import, and if not, does the reason name the element?

In: a folder that packages were installed into (``pip install --no-deps --target DIR robosuite mjlab ...``). Out: per
package its version, licences, and how many models were found, imported, refused; every refusal in full. Nothing is
downloaded. Exit code 1 when a refusal names no element, or anything but a clean refusal happened.

With ``--to FORMAT`` every model that imports is also written in that format, read back and compared: the last columns
count those that came back equal, equal but for looks, with losses, and with losses that nobody listed: a defect.

    python benchmarks/zoo.py --site DIR [--only WORD] [--check] [--to FORMAT] [--mend] [--json]
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from flyball.base import FlyballError, NotPossible
from flyball.robots.models import Imported, ReadOptions, load, model_formats
from flyball.robots.models.diff import diff
from flyball.robots.zoo.check import check
from flyball.robots.zoo.found import FoundModel, Search, search

ELEMENT = re.compile(
    r"\w/\w+|\w+\[[^\]]*\]|[\w.+-]+\.\w+:\d+|(body|joint|geom|mesh|link|actuator|site|material|texture|file) '?\"?\w"
)
"""What counts as naming an element: a path of elements, a line of a file, or a kind of element with a name."""


LOOKS = ("material", "texture", "user", "custom number", "custom text", "tuple", "output", "group")
"""Kinds and fields that physics does not know."""


@dataclass
class Outcome:
    """What became of one model.

    Attributes:
      result: imported | refused | crashed.
      reason: of a refusal, as the user reads it.
      named: whether the reason names an element (a format that is not read counts: the file is the element).
      losses: how many things did not come through.
      verdict: with ``--check``: sound, or the first error.
      back: with ``--to``: equal | looks (but for pictures and what users keep in a model) | losses | silent | failed.
      told: the losses.
    """

    name: str
    format: str
    version: str
    licence: str
    result: str
    reason: str
    named: bool
    losses: int
    seconds: float
    verdict: str = ""
    back: str = ""
    told: tuple[str, ...] = ()


def exported(imported: Imported, form: str) -> tuple[str, tuple[str, ...]]:
    """Write a model, read it back, compare: what became of it, and the losses that were listed."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            path, told = model_formats.load(form)().write(imported, Path(folder))
            back = load(path)
        except FlyballError as err:
            return "failed", (err.line(),)
    changes = diff(imported.model, back.model).changes
    if not changes:
        return "equal", tuple(told)
    seen = all(c.kind in LOOKS or c.field in LOOKS for c in changes)
    return ("silent" if not told else "looks" if seen else "losses"), (*told, *(c.line() for c in changes))


def tried(model: FoundModel, judged: bool, options: ReadOptions, form: str = "") -> Outcome:
    """Import one model; anything but a clean refusal is a crash."""
    begun = time.perf_counter()
    result, reason, named, losses, verdict = "imported", "", True, 0, ""
    back: tuple[str, tuple[str, ...]] = ("", ())
    try:
        if judged:
            done = check(model, options)
            losses = sum(f.element == "import" and f.level == "warning" for f in done.findings)
            verdict = next((f"{f.element}: {f.text}" for f in done.findings if f.level == "error"), "sound")
        else:
            imported = model.load(options)
            losses, back = len(imported.losses), exported(imported, form) if form else back
    except NotPossible:
        raise
    except FlyballError as err:
        result, reason = "refused", err.line()
        named = bool(ELEMENT.search(reason.replace(str(model.file), model.file.name))) or model.format == "sdf"
    except Exception as err:
        result, reason, named = "crashed", f"{type(err).__name__}: {err}", False
    seconds = time.perf_counter() - begun
    licence = str(model.licence)
    told = (model.name, model.format, model.version, licence, result, reason, named, losses, seconds, verdict)
    return Outcome(*told, *back)


def table(outcomes: list[Outcome]) -> list[str]:
    """One row per package."""
    rows: list[tuple[str, ...]] = [
        ("package", "version", "licences", "found", "imported", "refused", "crashed", "unnamed")
        + (("equal", "looks", "losses", "silent", "failed") if any(o.back for o in outcomes) else ())
    ]
    for package in sorted({o.name.partition("/")[0] for o in outcomes}):
        own = [o for o in outcomes if o.name.startswith(f"{package}/")]
        count = Counter(o.result for o in own)
        licences = ", ".join(sorted({o.licence for o in own}))
        unnamed = sum(not o.named for o in own)
        cells = [len(own), count["imported"], count["refused"], count["crashed"], unnamed]
        back = Counter(o.back for o in own)
        cells += [back[word] for word in rows[0][8:]]
        rows.append((package, own[0].version, licences, *map(str, cells)))
    width = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(c.ljust(w) for c, w in zip(row, width, strict=True)).rstrip() for row in rows]


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--site", type=Path, help="folder of installed packages (default: this Python's)")
    p.add_argument("--path", type=Path, action="append", default=[], help="a folder with models; repeat")
    p.add_argument("--only", default="", help="models whose name has this word in it")
    p.add_argument("--check", action="store_true", help="also judge what imports, half a second of simulation included")
    p.add_argument("--to", default="", metavar="FORMAT", help="write what imports as mjcf, urdf or usd, and compare")
    p.add_argument("--mend", action="store_true", help="mend inertias that no body can have instead of refusing")
    p.add_argument("--json", action="store_true", help="one JSON document on stdout")
    args = p.parse_args(argv)
    models = [m for m in search(Search(args.site, tuple(args.path)))[0] if args.only in m.name]
    outcomes = []
    for model in models:
        outcomes.append(tried(model, args.check and not args.to, ReadOptions(mend=args.mend), args.to))
        print(f"{outcomes[-1].result:<9}{model.name}", file=sys.stderr, flush=True)
    if args.json:
        print(json.dumps([asdict(o) for o in outcomes], indent=1))
    else:
        print(*table(outcomes), "", sep="\n")
        for o in outcomes:
            if o.result != "imported":
                print(f"{o.name}: {o.reason}" + ("" if o.named else "   <- NAMES NO ELEMENT"))
            elif o.verdict not in ("", "sound"):
                print(f"{o.name}: NOT SOUND: {o.verdict}")
            elif o.back in ("losses", "silent", "failed"):
                print(f"{o.name}: {o.back}: {'; '.join(o.told)[:300]}")
    return 1 if any(not o.named or o.back in ("silent", "failed") for o in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
