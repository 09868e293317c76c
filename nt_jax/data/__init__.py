"""Images to train and evaluate on: catalogue (which), sampling (their patches), builders (prepare).

The noise models are not data: they are in `nt_jax.noise`.
"""
