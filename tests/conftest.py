"""What every test shares: eight fake CPU devices and the persistent compilation cache."""

import json
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

# Files with few tests that take minutes. They come first, or one worker would be busy with them
# long after the others are done; the first ones compile what the next find compiled.
_SLOW = ("test_survival", "test_steps", "test_processes", "test_notebooks", "test_training")


def pytest_collection_modifyitems(items):
    order = {name: number for number, name in enumerate(_SLOW)}
    items.sort(key=lambda item: order.get(item.path.stem, len(_SLOW)))


@pytest.fixture(scope="module")
def steps_traced_once():
    """Runs of one process that differ in nothing a step sees share the compiled step."""
    from nt_jax.families.noisetransfer import task

    jit_train_step, steps = task.jit_train_step, {}

    def shared(config, networks, mesh):
        seen = json.loads(config.to_json())
        seen = {name: seen[name] for name in ("model", "variant", "losses", "train")}
        for name in ("steps", "checkpoint_every", "log_every"):
            del seen["train"][name]
        key = json.dumps(seen), mesh
        if key not in steps:
            steps[key] = jit_train_step(config, networks, mesh)
        return steps[key]

    with mock.patch.object(task, "jit_train_step", shared):
        yield
