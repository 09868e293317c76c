"""What every test shares: eight fake CPU devices and the persistent compilation cache."""

import gc
import os
import pathlib
from unittest import mock

import pytest

_REPOSITORY = pathlib.Path(__file__).parents[1]

# Compilation is most of the suite's time. So LLVM does not optimise, the older emitters are used,
# which make less for it to compile, and a module is not split among more threads than there are.
FAST_COMPILE = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}
_FLAGS = " ".join(f"--{name}={str(value).lower()}" for name, value in FAST_COMPILE.items())
os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count=8 {_FLAGS}")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_REPOSITORY / ".cache" / "jax"))
# Processes are started again and again: what compiles quickly adds up, too.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# A processor for each worker: the threads of two compilers and of two Eigens on the same two
# processors wait for each other.
_WORKER = os.environ.get("PYTEST_XDIST_WORKER")
if _WORKER and hasattr(os, "sched_setaffinity"):
    _PROCESSORS = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {_PROCESSORS[int(_WORKER.removeprefix("gw")) % len(_PROCESSORS)]})

# Tracing makes hundreds of thousands of objects that all stay: looking for garbage among them each
# 700 is an eighth of its time.
gc.set_threshold(1_000_000, 50, 50)

# Files with few tests that take minutes. They come first, or one worker would be busy with them
# long after the others are done; the first ones compile what the next find compiled.
_SLOW = ("test_survival", "test_steps", "test_processes", "test_notebooks", "test_training")


def pytest_collection_modifyitems(items):
    order = {name: number for number, name in enumerate(_SLOW)}
    items.sort(key=lambda item: order.get(item.path.stem, len(_SLOW)))


@pytest.fixture(scope="session", autouse=True)
def one_device():
    """Runs train on one of the eight fake devices, as those of `light_main` do.

    A step that is split over all takes longer to compile, and eight devices on a processor or two
    wait for each other at each step.
    """
    import jax
    import numpy as np
    from jax.sharding import Mesh

    from nt_jax.training import loop

    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    with mock.patch.object(loop, "data_mesh", return_value=mesh):
        yield


@pytest.fixture(scope="session", autouse=True)
def programs_kept():
    """Traced programs are kept for the suite's other runs and processes, as commands keep them."""
    from nt_jax.compilation import use_compilation_cache

    use_compilation_cache()


@pytest.fixture(scope="session", autouse=True)
def starts_traced_once():
    """Runs of one worker that differ in nothing a first state is made of share its making."""
    from nt_jax.training import loop
    from nt_jax.training.optimizer import step_config

    make, made = loop._fresh_state, {}

    def shared(config, task):
        key = type(task), step_config(config), config.seed
        if key not in made:
            made[key] = make(config, task)
        return made[key]

    with mock.patch.object(loop, "_fresh_state", shared):
        yield
