"""Robot models on disk: read, compared and written.

In: MJCF, URDF or (through ``flyball.scenes.usd``) USD files with their meshes. Out: ``Imported`` (MJCF text, assets and
facts), files of another format with the losses named, and ``DiffReport``. Nothing here loads a simulator at import.
"""

from flyball.robots.models.imported import Imported, ModelFormat, ReadOptions, load, model_formats
from flyball.robots.models.model import Model

__all__ = ["Imported", "Model", "ModelFormat", "ReadOptions", "load", "model_formats"]
