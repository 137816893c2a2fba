"""What a verb says. In: documents, lines, tables. Out: one JSON document or text on stdout, notes on stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Output:
    """Where a verb says things.

    Args:
      as_json: print one JSON document on stdout and nothing else there.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def result(self, document: Any, lines: Sequence[str] = ()) -> None:
        """The answer: the document under ``--json``, else the lines."""
        if self.as_json:
            # NaN and infinity are not JSON; a missing number is null.
            print(json.dumps(_finite(document), indent=1, allow_nan=False))
        else:
            for line in lines:
                print(_printable(line))
        sys.stdout.flush()

    def note(self, line: str) -> None:
        """Something worth knowing that is not the answer."""
        print(_printable(line), file=sys.stderr, flush=True)

    def table(self, document: Any, columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str) -> None:
        """The answer as an aligned table, or the ``empty`` line."""
        cells = [[str(c) for c in row] for row in rows]
        width = [max(len(str(x)) for x in column) for column in zip(columns, *cells, strict=True)]
        text = ["  ".join(c.ljust(w) for c, w in zip(row, width, strict=True)).rstrip() for row in [columns, *cells]]
        self.result(document, text if rows else [empty])


def _printable(text: str) -> str:
    """Without what is no text: names of files may be any bytes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _finite(x: Any) -> Any:
    if isinstance(x, dict):
        return {str(k): _finite(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return [_finite(v) for v in x]
    if hasattr(x, "tolist"):
        return _finite(x.tolist())
    if isinstance(x, float) and not math.isfinite(x):
        return None
    return str(x) if isinstance(x, Path) else x
