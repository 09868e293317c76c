"""What commands keep from one start to the next, so that a second one is quick.

JAX's persistent cache keeps compiled programs, but to find one in it JAX traces the network anew,
which takes longer than a small photo does. So the traced programs are kept beside them.
"""

import functools
import hashlib
import os
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

    That is so after `use_compilation_cache`; else, and on traced arrays, it is `jax.jit`.
    """

    def __init__(
        self, function: Callable[..., Any], compiler_options: dict[str, Any] | None = None
    ) -> None:
        """Wraps a function.

        Args:
          function: (static, *trees of arrays) -> array, or tuples and dicts of arrays. `static` is
            hashable, and its `repr` says all there is to it.
          compiler_options: of `jax.jit`.
        """
        import jax

        self._function = function
        self._options = compiler_options
        self._jitted = jax.jit(function, static_argnums=0, compiler_options=compiler_options)
        self._found: dict[Any, Callable[..., Any]] = {}

    def __call__(self, static: Any, *arguments: Any) -> Any:
        """Calls the function."""
        import jax

        leaves, structure = jax.tree.flatten(arguments)
        if _folder is None or any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return self._jitted(static, *arguments)
        shapes = [jax.typeof(leaf).str_short() for leaf in leaves]
        key = (_folder, static, structure, *shapes)
        if key not in self._found:
            name = self._function.__qualname__
            digest = hashlib.sha256(repr((name, static, structure, shapes)).encode())
            digest.update(_surroundings())
            path = _folder / f"{name.split('.')[-1]}-{digest.hexdigest()[:32]}{_SUFFIX}"
            self._found[key] = self._load(path) or self._save(path, static, arguments)
        return self._found[key](*arguments)

    def _load(self, path: Path) -> Callable[..., Any] | None:
        import jax.export

        try:
            content = path.read_bytes()
        except OSError:
            return None
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            return None
        exported = jax.export.deserialize(bytearray(content[32:]))
        return jax.jit(exported.call, compiler_options=self._options)

    def _save(self, path: Path, static: Any, arguments: tuple[Any, ...]) -> Callable[..., Any]:
        """Traces the function; what cannot be written now is traced again next time."""
        import jax.export

        from nt_jax.errors import InputError
        from nt_jax.files import replacing

        function = functools.wraps(self._function)(functools.partial(self._function, static))
        exported = jax.export.export(jax.jit(function))(*arguments)
        content = bytes(exported.serialize())
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                temporary.write_bytes(hashlib.sha256(content).digest() + content)
        except (OSError, InputError):
            pass
        return jax.jit(exported.call, compiler_options=self._options)


@functools.cache
def _surroundings() -> bytes:
    """All that a traced program depends on beside its arguments, as a digest."""
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
