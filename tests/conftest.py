"""What every test shares: eight fake CPU devices and the persistent compilation cache."""

import os
import pathlib

_REPOSITORY = pathlib.Path(__file__).parents[1]

# Compilation is most of the suite's time, so LLVM does not optimise.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_REPOSITORY / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Files with few tests that take minutes. They come first, or one worker would be busy with them
# long after the others are done.
_SLOW = ("test_survival", "test_processes", "test_training", "test_tables")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: not item.path.stem.startswith(_SLOW))
