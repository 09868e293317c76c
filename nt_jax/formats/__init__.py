"""Single formats, for `nt_jax.images`: TIFF, cameras' raw files, metadata."""
