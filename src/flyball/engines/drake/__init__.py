"""Drake, the independent third engine. In: scenes. Out: worlds stepped by Drake's own multibody code and SAP solver."""

import logging

from flyball.base import NotPossible

try:
    from flyball.engines.drake.simulation import DrakeEngine
except ModuleNotFoundError as err:
    if not (err.name or "").startswith("pydrake"):
        raise
    raise NotPossible("engine 'drake' needs the package drake", run_next="pip install 'flyball[drake]'") from err

# Drake warns of every floor that soft bodies would not feel; there are none here
logging.getLogger("drake").addFilter(lambda record: "deformable contact" not in record.getMessage())

__all__ = ["DrakeEngine"]
