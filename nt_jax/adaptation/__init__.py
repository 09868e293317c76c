"""A denoiser for one camera, from its noisy photos: what `nt_jax.adapt` does, step by step."""
