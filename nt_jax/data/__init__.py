"""Images to train and evaluate on: catalogue (which), sampling (their patches), builders (prepare).

`tfds` has what `prepare` wrote for `tfds.load`. The noise models are not data: `nt_jax.noise`.
"""
