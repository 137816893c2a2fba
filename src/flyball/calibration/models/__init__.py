"""Any robot model and its recordings as a calibration.

In: a robot model (MJCF, URDF, USD) and episodes that hold commands and encoder positions. Out: a ``Calibration``.
"""

from flyball.calibration.models.calibrate import calibrate_model
from flyball.calibration.models.rig import ModelRig, model_rig

__all__ = ["ModelRig", "calibrate_model", "model_rig"]
