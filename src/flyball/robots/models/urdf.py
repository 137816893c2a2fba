"""URDF as one of the model formats.

In: a URDF file with its meshes and sidecar. Out: ``Imported``; and back. How it is read and what is assumed stands in
``flyball.robots.models.urdf_in``, how it is written in ``flyball.robots.models.urdf_out``.
"""

from __future__ import annotations

from pathlib import Path

from flyball.robots.models import sidecar
from flyball.robots.models.imported import Imported, ReadOptions
from flyball.robots.models.markup import parse
from flyball.robots.models.references import Files
from flyball.robots.models.urdf_in import imported_from
from flyball.robots.models.urdf_out import write


class UrdfFormat:
    """URDF; see ``flyball.robots.models.ModelFormat``."""

    name = "urdf"
    suffixes: tuple[str, ...] = (".urdf",)

    def read(self, path: Path, options: ReadOptions) -> Imported:
        """Read a model; see ``ModelFormat.read``."""
        files = Files(path, options)
        source = parse(files.read(path, path.name), path.name)
        return imported_from(source, files, options, sidecar.read_beside(path), path)

    def write(self, imported: Imported, folder: Path) -> tuple[Path, list[str]]:
        """Write a model with meshes and sidecar; see ``ModelFormat.write``."""
        return write(imported, folder)
