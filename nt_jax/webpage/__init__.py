"""The web page of `nt_jax.app`: who uses it, what it does for them, how that looks."""
