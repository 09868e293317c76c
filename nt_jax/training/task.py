"""Interface between the training loop and the model it trains, implemented twice."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jax.sharding import Mesh

from nt_jax.checkpointing import load_state
from nt_jax.errors import InputError
from nt_jax.models.parameters import Array, Tree
from nt_jax.training.fields import check_fields

Batch = dict[str, Array]
Metrics = dict[str, Array]
# (state, batch, key) -> (state after the step, {name: float32 scalar})
Step = Callable[[Any, Batch, Array], tuple[Any, Metrics]]


class Evaluation(NamedTuple):
    """Scores of a state on held-out patches, and sample pictures.

    Attributes:
      results: {name: number}, names begin with `eval/`.
      pictures: {title: images [N, P, P, 3]}, columns of one picture.
    """

    results: dict[str, float]
    pictures: dict[str, np.ndarray]


class Task(ABC):
    """A model and how it is trained.

    A state is a pytree with a field `step`, the updates done.

    Attributes:
      titles: names of an evaluation's results, less `eval/`, for the table at the end of a run.
      headline: those for the line of an evaluation.
      curves: those drawn over the steps in `samples/curves.png`.
      picture: the column of the sample pictures that TensorBoard shows.
      shown: numbers of a step for the progress line.
      inputs: entries of a batch that a step takes.
      sections: of the config, that a checkpoint's must have to be of this kind.
      inherits: {field of the state: field of another run's state that `train.init_from` starts it
        with}.
    """

    titles: ClassVar[dict[str, str]]
    headline: ClassVar[tuple[str, ...]]
    curves: ClassVar[tuple[str, ...]]
    picture: ClassVar[str]
    shown: ClassVar[tuple[str, ...]]
    sections: ClassVar[tuple[str, ...]]
    inherits: ClassVar[dict[str, str]]
    inputs: tuple[str, ...]

    @abstractmethod
    def __init__(self, config: Any) -> None:
        """Checks the config and reads what is evaluated on; raises InputError."""

    @abstractmethod
    def init(self, key: Array) -> Any:
        """State before the first step."""

    @abstractmethod
    def parameters(self, state: Any) -> dict[str, Tree]:
        """Trained parameters by network name."""

    def networks_of(self, source: str) -> tuple[int, dict[str, Any]]:
        """Reads what `train.init_from` names: (step, state as nested dicts), as `inherits` has it.

        Raises:
          InputError: it is nothing to start from.
        """
        _, step, state = load_state(source)
        return step, state

    @abstractmethod
    def make_step(self, mesh: Mesh) -> Step:
        """The compiled step, batches split over the mesh's `data` axis, the state donated."""

    @abstractmethod
    def evaluate(self, state: Any, key: Array) -> Evaluation:
        """Scores the state on the held-out patches."""


def task_class(config: Any) -> type[Task]:
    """Finds the task of a config: a denoiser if it has a section `denoiser`, else NoiseTransfer."""
    if "denoiser" in config:
        from nt_jax.training.denoiser import DenoiserTask

        return DenoiserTask
    from nt_jax.training.noisetransfer import NoiseTransferTask

    return NoiseTransferTask


def check_common(config: Any, mesh: Mesh) -> None:
    """Raises InputError if a field, or the batch on these devices, cannot be used."""
    check_fields(config)
    if config.train.batch_size % mesh.size:
        raise InputError(
            f"config.train.batch_size={config.train.batch_size} is not a multiple of the"
            f" {mesh.size} devices"
        )
