"""Figure 5: PSNR on held-out real pairs while denoisers train on each kind of noise.

  python -m experiments.fig5_curves --model=small,runs/danet --pairs=SIDD_TRAIN --val=SIDD_VAL \
    --output=DIR [--rows=generated,real,...] [--seeds=0]

Rows and trainings are those of `experiments/table2_real_denoising.py`; with its --runs nothing is
trained twice. Draws the first seed's curves. The paper shows curves, not numbers; below ours is
where its curves end (its table 2).
"""

from matplotlib.figure import Figure

from experiments import budget
from experiments.table2_real_denoising import PUBLISHED, PUBLISHED_SETS, Study, begin
from nt_jax.errors import run_command
from nt_jax.evaluation import report

METRIC = "eval/psnr"
_COLOURS = 10  # of Matplotlib's cycle, which then begins again


def curves(study: Study) -> dict[str, tuple[list[int], list[float]]]:
    """Reads steps and PSNR of each row, without the untrained network."""
    found = {}
    for name, workdirs in study.workdirs.items():
        steps, values = budget.curve(workdirs[0], METRIC)
        trained = [(step, value) for step, value in zip(steps, values, strict=True) if step]
        found[name] = ([step for step, _ in trained], [value for _, value in trained])
    return found


def draw(titles: dict[str, str], found: dict[str, tuple[list[int], list[float]]]) -> Figure:
    """Draws a line a row."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    axes = figure.subplots()
    for number, (name, (steps, values)) in enumerate(found.items()):
        style = "-" if number < _COLOURS else "--"
        axes.plot(steps, values, style, marker=".", label=titles[name])
    axes.set(xlabel="step", ylabel="PSNR on held-out pairs, dB")
    axes.grid(alpha=0.3)
    figure.legend(fontsize=9, loc="outside right upper")
    return figure


def main(argv: list[str] | None = None) -> None:
    """Runs it.

    Raises:
      InputError: a wrong flag, model, folder or image.
      DivergedError: a training became non-finite.
      PreemptedError: a signal stopped it; the same command goes on.
    """
    args, options, study = begin("fig5_curves", __doc__, argv, ["steps"])
    found = curves(study)
    rows = []
    for name, (steps, values) in found.items():
        best = max(range(len(values)), key=values.__getitem__)
        rows.append(
            [
                study.titles[name],
                f"{values[best]:.2f}",
                str(steps[best]),
                f"{values[-1]:.2f}",
                f"{values[best] - values[-1]:.2f}",
            ]
        )
    header = ["trained on", "best, dB", "at step", "last, dB", "drop, dB"]
    published = [[name, *(cell.split(" / ")[0] for cell in row)] for name, row in PUBLISHED.items()]
    tables = {
        "PSNR on held-out pairs": report.markdown_table(header, rows),
        "Published (the paper's table 2), last, dB": report.markdown_table(
            ["trained on", *PUBLISHED_SETS], published
        ),
    }
    notes = [
        budget.describe(options, study.config, scored=False),
        f"Trained on {args.pairs}, generator {args.model}; "
        f"{study.config.eval.patches} patches of {study.config.eval.patch_size} pixels a side of "
        f"{args.val}.",
        "A drop from the best value says that a denoiser overfits to its noise, as the paper finds "
        "for DANet and GDANet.",
    ]
    results = {"curves": {name: dict(zip(*xy, strict=True)) for name, xy in found.items()}}
    figures = {"curves": draw(study.titles, found)}
    text = budget.write(
        options, "Figure 5: denoisers while they train", tables, notes, results, figures
    )
    print(f"{text}\nresults: {options.output}")


if __name__ == "__main__":
    run_command(main)
