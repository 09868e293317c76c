"""Whether JAX finds something to compute on, asked before anything else can be blamed for it."""

import os

from nt_jax.errors import InputError


def check_devices() -> None:
    """Starts JAX's devices. On several processes only after they are connected.

    Raises:
      InputError: there are none: `JAX_PLATFORMS` names a platform that is missing here, or a driver
        does not start.
    """
    import jax

    try:
        jax.devices()
    # A platform that JAX was not installed for is an assertion without words.
    except (RuntimeError, AssertionError) as error:
        asked = os.environ.get("JAX_PLATFORMS") or jax.config.values.get("jax_platforms") or ""
        reason = " ".join(str(error).split()) or "it was not installed for that platform"
        raise InputError(
            f"JAX finds no device to compute on with JAX_PLATFORMS={asked} ({reason[:200]}); unset"
            " JAX_PLATFORMS, or set JAX_PLATFORMS=cpu"
        ) from error
