"""``flyball reports [DIGEST]``: evaluation reports in the workspace's store, or one of them."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime

from flyball.apps.cli.output import Output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which report."""
    parser.add_argument("digest", nargs="?", help="show this one (the beginning of its digest is enough)")


def run(args: argparse.Namespace, out: Output) -> int:
    """List reports, or print one."""
    from flyball.base.workspace import Workspace

    space = Workspace(args.workspace, create=False)
    if args.digest:
        document = json.loads(space.store.get(space.store.resolve(args.digest)))
        out.result(document, [json.dumps(document, indent=1)])
        return 0
    found = space.store.find("report")
    pages = sorted(str(p) for p in space.reports.glob("*.html"))
    rows = [
        (
            a.digest[:12],
            datetime.fromtimestamp(a.created_ns / 1e9, UTC).isoformat(" ", "seconds"),
            ", ".join(f"{k} {v}" for k, v in a.labels.items()),
        )
        for a in found
    ]
    document = {
        "reports": [{"digest": a.digest, "created_ns": a.created_ns, "labels": dict(a.labels)} for a in found],
        "pages": pages,
    }
    out.table(document, ("report", "made (UTC)", "about"), rows, "no evaluation reports yet; try: flyball demo")
    for page in pages if not out.as_json else ():
        print(f"page: {page}")
    return 0
