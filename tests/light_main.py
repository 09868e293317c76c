"""The training command as tests start it again and again: no TensorBoard or pictures, few devices.

Importing clu, TensorFlow and matplotlib for it takes longer than the steps that are tested.
"""

import pathlib
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # as `-m nt_jax.main` has it
_HEAVY = ("clu",) if "--config.data.loader=tfdata" in sys.argv else ("clu", "tensorflow")
sys.modules |= dict[str, Any].fromkeys(_HEAVY)

from light_run import data_mesh, save_nothing  # noqa: E402

from nt_jax.errors import run_command  # noqa: E402
from nt_jax.main import main  # noqa: E402
from nt_jax.training import logs, loop  # noqa: E402

if __name__ == "__main__":
    logs.save_grid = logs.save_curves = save_nothing
    loop.data_mesh = data_mesh
    run_command(main)
