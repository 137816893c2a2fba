"""Do published robot models import, and if not, does the reason name the element?

In: a folder that packages were installed into (``pip install --no-deps --target DIR robosuite mjlab ...``). Out: per
package its version, licences, and how many models were found, imported, refused; every refusal in full. Nothing is
downloaded. Exit code 1 when a refusal names no element, or anything but a clean refusal happened.

    python benchmarks/zoo.py --site DIR [--only WORD] [--check] [--mend] [--json]
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from flyball.base import FlyballError, NotPossible
from flyball.robots.models import ReadOptions
from flyball.robots.zoo.check import check
from flyball.robots.zoo.found import FoundModel, Search, search

ELEMENT = re.compile(
    r"\w/\w+|\w+\[[^\]]*\]|[\w.+-]+\.\w+:\d+|(body|joint|geom|mesh|link|actuator|site|material|texture|file) '?\"?\w"
)
"""What counts as naming an element: a path of elements, a line of a file, or a kind of element with a name."""


@dataclass
class Outcome:
    """What became of one model.

    Attributes:
      result: imported | refused | crashed.
      reason: of a refusal, as the user reads it.
      named: whether the reason names an element (a format that is not read counts: the file is the element).
      losses: how many things did not come through.
      verdict: with ``--check``: sound, or the first error.
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


def tried(model: FoundModel, judged: bool, options: ReadOptions) -> Outcome:
    """Import one model; anything but a clean refusal is a crash."""
    begun = time.perf_counter()
    result, reason, named, losses, verdict = "imported", "", True, 0, ""
    try:
        if judged:
            done = check(model, options)
            losses = sum(f.element == "import" and f.level == "warning" for f in done.findings)
            verdict = next((f"{f.element}: {f.text}" for f in done.findings if f.level == "error"), "sound")
        else:
            losses = len(model.load(options).losses)
    except NotPossible:
        raise
    except FlyballError as err:
        result, reason = "refused", err.line()
        named = bool(ELEMENT.search(reason.replace(str(model.file), model.file.name))) or model.format == "sdf"
    except Exception as err:
        result, reason, named = "crashed", f"{type(err).__name__}: {err}", False
    seconds = time.perf_counter() - begun
    licence = str(model.licence)
    return Outcome(model.name, model.format, model.version, licence, result, reason, named, losses, seconds, verdict)


def table(outcomes: list[Outcome]) -> list[str]:
    """One row per package."""
    rows: list[tuple[str, ...]] = [
        ("package", "version", "licences", "found", "imported", "refused", "crashed", "unnamed")
    ]
    for package in sorted({o.name.partition("/")[0] for o in outcomes}):
        own = [o for o in outcomes if o.name.startswith(f"{package}/")]
        count = Counter(o.result for o in own)
        licences = ", ".join(sorted({o.licence for o in own}))
        unnamed = sum(not o.named for o in own)
        cells = (len(own), count["imported"], count["refused"], count["crashed"], unnamed)
        rows.append((package, own[0].version, licences, *map(str, cells)))
    width = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(c.ljust(w) for c, w in zip(row, width, strict=True)).rstrip() for row in rows]


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--site", type=Path, help="folder of installed packages (default: this Python's)")
    p.add_argument("--path", type=Path, action="append", default=[], help="a folder with models; repeat")
    p.add_argument("--only", default="", help="models whose name has this word in it")
    p.add_argument("--check", action="store_true", help="also judge what imports, half a second of simulation included")
    p.add_argument("--mend", action="store_true", help="mend inertias that no body can have instead of refusing")
    p.add_argument("--json", action="store_true", help="one JSON document on stdout")
    args = p.parse_args(argv)
    models = [m for m in search(Search(args.site, tuple(args.path)))[0] if args.only in m.name]
    outcomes = []
    for model in models:
        outcomes.append(tried(model, args.check, ReadOptions(mend=args.mend)))
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
    return 1 if any(not o.named for o in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
