"""Under what terms a model may be used, as far as the files around it say.

In: a model's file, the folder its publisher laid down, the package's metadata. Out: ``Licence``: a name, where it was
read, and the file. Nothing is guessed: a licence file whose text is not a well-known one is named, not interpreted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

_FILES = re.compile(r".*(licen[cs]e|copying)[^/]*", re.IGNORECASE)
_CODE = {".py", ".pyc", ".so", ".c", ".h"}
_TEXTS = (  # words of the licence text -> SPDX name; the first that matches
    (r"apache license\s+version 2\.0", "Apache-2.0"),
    (r"mozilla public license,? version 2\.0", "MPL-2.0"),
    (r"attribution[- ]noncommercial[- ]sharealike 4\.0", "CC-BY-NC-SA-4.0"),
    (r"attribution[- ]noncommercial 4\.0", "CC-BY-NC-4.0"),
    (r"attribution[- ]sharealike 4\.0", "CC-BY-SA-4.0"),
    (r"licenses/by-sa/3\.0", "CC-BY-SA-3.0"),
    (r"attribution 4\.0", "CC-BY-4.0"),
    (r"gnu affero general public license", "AGPL"),
    (r"gnu lesser general public license", "LGPL"),
    (r"gnu general public license\s+version 3", "GPL-3.0"),
    (r"gnu general public license\s+version 2", "GPL-2.0"),
    (r"altered source versions must be plainly marked", "Zlib"),
    (r"redistribution and use in source and binary forms.*(neither the names?|nor the names) ", "BSD-3-Clause"),
    (r"redistribution and use in source and binary forms", "BSD-2-Clause"),
    (r"permission is hereby granted, free of charge", "MIT"),
)


@dataclass(frozen=True)
class Licence:
    """A licence as found.

    Attributes:
      name: SPDX name where the text is a well-known one, else the words found, "" when there are none.
      source: ``beside the model``, ``package.xml``, ``package metadata`` or ``not found``.
      file: the file it was read from.
    """

    name: str = ""
    source: str = "not found"
    file: Path | None = None

    def __str__(self) -> str:
        return self.name or (f"see {self.file.name}" if self.file else "not stated")


def recognise(text: str) -> str:
    """SPDX name of a licence's text, "" when it is none of the well-known ones."""
    if len(re.findall(r"^# ", text, re.MULTILINE)) > 1:
        return ""  # a list of who gave what under which terms: for people to read
    flat = " ".join(text.lower().split())
    return next((name for words, name in _TEXTS if re.search(words, flat)), "")


def beside(model: Path, top: Path) -> Licence | None:
    """The licence file or ``package.xml`` nearest to a model, from its folder up to ``top``."""
    for folder in (model.parent, *model.parent.parents):
        if not folder.is_relative_to(top):
            return None
        try:
            files = sorted(folder.iterdir())
        except OSError:  # not ours to read
            continue
        for file in files:
            if _FILES.fullmatch(file.name) and file.suffix not in _CODE and file.is_file():
                return Licence(recognise(_head(file)), "beside the model", file)
        manifest = folder / "package.xml"
        if manifest.is_file() and (found := re.search(r"<license[^>]*>([^<]+)</license>", _head(manifest))):
            return Licence(found[1].strip(), "package.xml", manifest)
    return None


def near(model: Path, comments: Sequence[str], top: Path) -> str:
    """One line for people: the licence beside a model (see ``beside``), else what a comment in the model says."""
    found = beside(model.resolve(), top.resolve())
    if found and found.file:
        said = next((line.strip()[:100] for line in _head(found.file).splitlines() if len(line.strip()) > 3), "")
        return f"{found.name or said} ({found.file.name})"
    for comment in comments:
        for line in comment.splitlines():
            if re.search(r"licen[cs]e|SPDX|copyright", line, re.IGNORECASE):
                return line.strip()[:100]
    return ""


def stated(metadata: Message, location: Path) -> Licence:
    """What a package's metadata say of all that is in it.

    Args:
      metadata: core metadata of the distribution.
      location: its ``dist-info`` folder.
    """
    source = "package metadata"
    if expression := metadata.get("License-Expression"):
        return Licence(expression, source)
    classifiers = [c.split(" :: ")[-1] for c in metadata.get_all("Classifier") or [] if c.startswith("License :: ")]
    field = metadata.get("License") or ""
    if field and "\n" not in field and len(field) < 40:
        return Licence(field, source)
    if name := recognise(field):
        return Licence(name, source)
    if classifiers:
        return Licence(", ".join(classifiers), source)
    for name in metadata.get_all("License-File") or []:
        for file in (location / "licenses" / name, location / name):
            if file.is_file() and (known := recognise(_head(file))):
                return Licence(known, source, file)
    return Licence()


def _head(file: Path) -> str:
    with file.open("rb") as f:
        return f.read(1 << 16).decode("utf-8", "replace")
