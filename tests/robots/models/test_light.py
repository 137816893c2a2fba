"""Reading models needs MuJoCo; importing what reads them does not."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_readers_loads_no_simulator():
    code = (
        "import sys, flyball.robots.models\n"
        "from flyball.robots.models import mjcf, urdf, urdf_out, diff, sidecar, guard, meshes, facts\n"
        "print(sorted({'mujoco', 'collada', 'pxr', 'torch', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
