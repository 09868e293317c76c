"""The persistent compilation cache that commands use, so that a second start is quick."""

import os
from pathlib import Path


def use_compilation_cache() -> None:
    """Keeps compiled programs in `$XDG_CACHE_HOME/nt_jax/jax` (`~/.cache/nt_jax/jax`).

    `JAX_COMPILATION_CACHE_DIR` names another folder, and `JAX_ENABLE_COMPILATION_CACHE=false`
    switches it off, as everywhere in JAX. Call it before the first computation.
    """
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(root) / "nt_jax" / "jax"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # JAX's own threshold of 1 s would leave out the many small programs.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
