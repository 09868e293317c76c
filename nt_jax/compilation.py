"""Keeps programs of commands from one start to the next, so that a second one is quick.

JAX's persistent cache keeps compiled programs, but to find one in it JAX traces the network anew,
which takes longer than a small photo does. So the traced programs are kept beside them.
"""

import functools
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

_SUFFIX = ".stablehlo"
_folder: Path | None = None


def use_compilation_cache() -> None:
    """Keeps compiled and traced programs in `$XDG_CACHE_HOME/nt_jax/jax` (`~/.cache/nt_jax/jax`).

    `JAX_COMPILATION_CACHE_DIR` names another folder, and `JAX_ENABLE_COMPILATION_CACHE=false`
    switches it off, as everywhere in JAX. Call it before the first computation.
    """
    import jax

    global _folder
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(root) / "nt_jax" / "jax"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # JAX's own threshold of 1 s would leave out the many small programs.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    directory = jax.config.values["jax_compilation_cache_dir"]
    enabled = jax.config.values["jax_enable_compilation_cache"]
    _folder = Path(directory) if directory and enabled and "://" not in directory else None


class Program:
    """A jitted function(static, *arrays), read back where a process before has traced it.

    That is so after `use_compilation_cache`; else it is traced. Traced arrays, as under another
    `jax.jit` or `jax.grad`, get the function itself.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        donate: int | None = None,
        kept: bool = True,
        **options: Any,
    ) -> None:
        """Wraps a function.

        Args:
          function: (static, *trees of arrays) -> array, or trees of arrays. `static` is hashable,
            and its `repr` says all there is to it.
          donate: which of the trees is donated.
          kept: whether it is kept for the next process; never what is not of this package, of whose
            changes nothing is known.
          **options: of `jax.jit`.
        """
        import jax

        self._function, self._options = function, dict(options)
        self._kept = kept and function.__module__.startswith(f"{__package__}.")
        self._donated: dict[str, Any] = {}
        if donate is not None:
            self._donated["donate_argnums"] = donate
            options["donate_argnums"] = donate + 1
        self._jitted = jax.jit(function, static_argnums=0, **options)
        self._found: dict[Any, Callable[..., Any]] = {}
        self._one_thread = threading.RLock()

    def __call__(self, static: Any, *arguments: Any) -> Any:
        """Calls the function."""
        import jax

        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arguments))
        if traced or _folder is None or not self._kept:
            return self._jitted(static, *arguments)
        return self._program(_folder, static, arguments)(*arguments)

    def lower(self, static: Any, *arguments: Any) -> Any:
        """Lowers it for these arguments, as `jax.jit(...).lower` does."""
        return self._jitted.lower(static, *arguments)

    def _program(self, folder: Path, static: Any, arguments: tuple[Any, ...]) -> Any:
        import jax

        leaves, structure = jax.tree.flatten(arguments)
        shapes = [jax.typeof(leaf).str_short() for leaf in leaves]
        key = (folder, static, structure, *shapes)
        # Threads that begin together would each trace it.
        with self._one_thread:
            if key not in self._found:
                name = self._function.__qualname__
                parts = (self._function.__module__, name, static, structure, shapes, self._options)
                digest = hashlib.sha256(repr(parts).encode())
                digest.update(_surroundings())
                path = folder / f"{name.split('.')[-1]}-{digest.hexdigest()[:32]}{_SUFFIX}"
                exported = _read(path) or self._trace(path, static, arguments)
                self._found[key] = jax.jit(exported.call, **self._donated, **self._options)
        return self._found[key]

    def _trace(self, path: Path, static: Any, arguments: tuple[Any, ...]) -> Any:
        """Exports the function; what cannot be written now is traced again next time."""
        import jax.export

        from nt_jax.errors import InputError
        from nt_jax.files import replacing

        function = functools.wraps(self._function)(functools.partial(self._function, static))
        exported = jax.export.export(jax.jit(function, **self._options))(*arguments)
        content = bytes(exported.serialize())
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                temporary.write_bytes(hashlib.sha256(content).digest() + content)
        except (OSError, InputError):
            pass
        return exported


def _read(path: Path) -> Any:
    """Reads a traced program; None where there is none, or a damaged one."""
    import jax.export

    try:
        content = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        return None
    return jax.export.deserialize(bytearray(content[32:]))


@functools.cache
def _surroundings() -> bytes:
    """Digests all that a traced program depends on beside its arguments."""
    import flax
    import jax
    import jaxlib

    settings = sorted(item for item in os.environ.items() if item[0].startswith(("JAX_", "XLA_")))
    device = jax.devices()[0].platform, jax.config.values["jax_enable_x64"]
    versions = jax.__version__, jaxlib.__version__, flax.__version__
    digest = hashlib.sha256(repr((versions, device, settings)).encode())
    package = Path(__file__).parent
    for file in sorted(package.glob("**/*.py")):
        digest.update(file.read_bytes())
    return digest.digest()
