"""What a .usdz package holds, looked at before anything opens it.

In: a path. Out: the names in it, or one line that says why not. USD reads packages in place, so everything in one must
be stored as it is: a compressed entry is either a mistake or a bomb.
"""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath

from flyball.base import Damaged, InputError

MOST_ENTRIES = 10_000


def check(path: Path, largest: int) -> list[str]:
    """The names in a package.

    Args:
      largest: of the contents together [bytes].

    Raises:
      Damaged: not a zip file, or its directory contradicts the file.
      InputError: too large, compressed, encrypted, nested, or a name that leads out of the package.
    """
    try:
        with zipfile.ZipFile(path) as package:
            entries = package.infolist()
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, ValueError) as err:
        raise Damaged(f"not a zip file: {err}", where=str(path), allowed="a .usdz package") from err
    if len(entries) > MOST_ENTRIES:
        raise InputError(f"{len(entries)} entries", where=str(path), allowed=f"up to {MOST_ENTRIES}")
    size = path.stat().st_size
    total = 0
    for entry in entries:
        where = f"{path}[{entry.filename[:80]}]"
        name = PurePosixPath(entry.filename)
        if name.is_absolute() or ".." in name.parts or "\\" in entry.filename or "\0" in entry.filename:
            raise InputError("the name leads out of the package", where=where, allowed="relative names without '..'")
        if entry.flag_bits & 1:
            raise InputError("encrypted", where=where, allowed="plain entries")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            what = f"compressed, {entry.compress_size} to {entry.file_size} bytes"
            raise InputError(
                what, where=where, allowed="stored entries", run_next=f"unzip {path.name} and pack it anew"
            )
        if name.suffix.lower() == ".usdz":
            raise InputError("a package within a package", where=where, allowed="one level")
        total += entry.file_size
        if total > largest:
            raise InputError(f"more than {total} bytes inside", where=str(path), allowed=f"up to {largest}")
    if total > size:
        raise Damaged(f"its directory promises {total} bytes in a file of {size}", where=str(path))
    if not entries or PurePosixPath(entries[0].filename).suffix.lower() not in (".usd", ".usda", ".usdc"):
        raise Damaged("the first entry is no USD layer", where=str(path), allowed=".usd, .usda or .usdc first")
    return [e.filename for e in entries]
