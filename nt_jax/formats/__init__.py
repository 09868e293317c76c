"""What `nt_jax.images` knows of single formats: TIFF, cameras' raw files, metadata."""
