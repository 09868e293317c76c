"""Puts the noise of a photo on a folder of images with Apache Beam, on whatever runs its pipelines.

  python examples/beam_transfer.py --reference=noisy.jpg --clean=photos --output=noisy_photos \
    --direct_running_mode=multi_processing --direct_num_workers=4

Further flags are Beam's: `--runner` and those of the runner. The files are those of `nt-jax
transfer`, with the same seeds, whichever worker makes them. Every worker process loads one model,
when it starts; all must see the folders under the same names. What is finished is left out, so a
pipeline that was stopped goes on; nothing checks that it was started with the same flags.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import apache_beam as beam
import numpy as np
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils.shared import Shared

import nt_jax
from nt_jax.compilation import use_compilation_cache
from nt_jax.images import image_size, read_photo
from nt_jax.inference.checks import check_options
from nt_jax.inference.files import Job, is_done, make_file, noise_of_photos, pair_up
from nt_jax.inference.tiles import Tile


def list_images(clean: Path, output: Path, seed: int) -> Iterator[tuple[Path, Path, int]]:
    """Lists the images of a folder: (image, file to write, seed)."""
    pairs = pair_up(clean, output)
    check_options(seed, 1.0, len(pairs))
    for index, (source, target) in enumerate(pairs):
        yield source, target, seed + index


class PutNoise(beam.DoFn):
    """(image, file to write, seed) -> what became of it: "made", "finished already" or why not."""

    def __init__(self, model: str, reference: Path):
        self._names = model, reference
        self._one_a_process = Shared()

    def setup(self) -> None:
        """Loads the model, or takes it from another thread of the process."""
        self._tiles = self._one_a_process.acquire(self._load)

    def _load(self) -> Callable[[Job, np.ndarray], Iterator[Tile]]:
        use_compilation_cache()  # of several workers on a machine, the first compiles
        name, reference = self._names
        model = nt_jax.load(name)
        noise = noise_of_photos(model, [read_photo(reference)])
        return lambda job, pixels: model.transfer_tiles(
            pixels, noise.embedding, seed=job.seed, gain=noise.gain
        )

    def process(self, element: tuple[Path, Path, int]) -> Iterator[str]:
        """Makes one file."""
        source, target, seed = element
        try:
            job = Job(source, target, seed, image_size(source))
            if is_done(job):
                yield "finished already"
                return
            target.parent.mkdir(parents=True, exist_ok=True)
            make_file(job, self._tiles)
            yield "made"
        except nt_jax.InputError as error:  # one broken image does not end the pipeline
            yield str(error)


def main(argv: list[str] | None = None) -> None:
    """Runs the pipeline and prints how often what happened."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--reference", required=True, type=Path, help="noisy image")
    parser.add_argument("--clean", required=True, type=Path, help="folder of images")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    parser.add_argument("--model", default="small", help="bundled name or model folder")
    parser.add_argument("--seed", default=0, type=int, help="of the first image")
    args, of_beam = parser.parse_known_args(argv)

    with beam.Pipeline(options=PipelineOptions(of_beam)) as pipeline:
        (
            pipeline
            | beam.Create([(args.clean, args.output, args.seed)])
            | beam.FlatMapTuple(list_images)
            | beam.Reshuffle()  # or one worker would get all
            | beam.ParDo(PutNoise(args.model, args.reference))
            | beam.combiners.Count.PerElement()
            | beam.MapTuple(lambda what, count: print(f"{count} {what}", flush=True))
        )


if __name__ == "__main__":
    main()
