"""Figure 7: NoiseTransfer without its contrastive losses, AKLD and KS while training.

  python -m experiments.fig7_ablation --photos=PHOTOS --output=DIR [--pairs=DIR --val=DIR]

Trains `configs/noisetransfer.py` three times: with all losses; without L_noise^D, the contrast of
the encoder; without L_noise^G and L_noise^FM, the generator's. --photos and --pairs are trained on;
--val and --val_photos are held out. A run that diverges is a result, not an error. Budgets: smoke
takes seconds a run; small is `small`, for 2 CPU cores; paper is the paper's 60 epochs of 2,000
steps.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from configs import noisetransfer
from experiments import budget
from nt_jax.compilation import use_compilation_cache
from nt_jax.errors import DivergedError, run_command, unwind_on_signals
from nt_jax.evaluation import report
from nt_jax.files import replacing

# Fields that differ from the full losses, and what the paper says of the run.
RUNS: dict[str, tuple[str, dict[str, float], str]] = {
    "full": ("all losses", {}, "stable, best"),
    "no_noise_g": (
        "without L_noise^G and L_noise^FM",
        {"losses.noise_g": 0.0, "losses.noise_fm": 0.0},
        "unstable early on",
    ),
    "no_noise_d": (
        "without L_noise^D",
        {"losses.noise_d": 0.0},
        "diverged after 14 of 60 epochs",
    ),
}
METRICS = {"eval/akld": "AKLD", "eval/ks": "KS", "eval/akld_other": "AKLD, other reference"}
_PAPER_STEPS = 60 * 2000


def train(name: str, options: budget.Options, seed: int, fields: dict[str, Any]) -> dict[str, Any]:
    """Trains one run: its curves by metric, and why it diverged or None."""
    config = noisetransfer.get_config(options.budget.generator)
    budget.shorten(config, options.steps or (_PAPER_STEPS if options.name == "paper" else None))
    config.seed = seed
    config.update_from_flattened_dict(fields | RUNS[name][1])
    workdir = options.runs / f"ablation-{name}-{options.name}-seed{seed}"
    note = workdir / "diverged.txt"
    budget.check_same(config, workdir)
    if not note.exists():
        try:
            budget.train(config, workdir)
        except DivergedError as error:
            print(f"diverged: {error}", flush=True)
            with replacing(note) as temporary:
                temporary.write_text(f"{error}\n", encoding="utf-8")
    found = {metric: budget.curve(workdir, metric) for metric in METRICS}
    trained = json.loads((workdir / "config.json").read_text())["train"]["steps"]
    diverged = note.read_text(encoding="utf-8").strip() if note.exists() else None
    return {"curves": found, "diverged": diverged, "steps": trained}


def draw(runs: dict[str, list[dict[str, Any]]]) -> Figure:
    """Draws a panel a metric, a colour a run, a line a seed."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    panels = figure.subplots(1, len(METRICS))
    for axes, (metric, title) in zip(panels, METRICS.items(), strict=True):
        for number, (name, seeds) in enumerate(runs.items()):
            for index, run in enumerate(seeds):
                label = RUNS[name][0] if index == 0 else None
                axes.plot(*run["curves"][metric], f"C{number}", marker=".", label=label)
        axes.set(xlabel="step", title=title, ylim=(0, None))
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize=8)
    return figure


def table(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Writes Markdown: the last and the best value of each metric, means over seeds."""
    header = ["losses"]
    for title in METRICS.values():
        header += [f"{title}: last", "best"]
    rows = []
    for name, seeds in runs.items():
        row = [RUNS[name][0]]
        for metric in METRICS:
            # Step 0 is of the untrained network.
            values = [run["curves"][metric][1][1:] or [np.nan] for run in seeds]
            row += [f"{np.mean([v[-1] for v in values]):.3f}"]
            row += [f"{np.mean([min(v) for v in values]):.3f}"]
        stopped = sum(run["diverged"] is not None for run in seeds)
        row.append(f"{stopped} of {len(seeds)}")
        rows.append([*row, RUNS[name][2]])
    return report.markdown_table([*header, "diverged", "published"], rows)


def main(argv: list[str] | None = None) -> None:
    """Runs it.

    Raises:
      InputError: a wrong flag, folder or image.
      PreemptedError: a signal stopped it; the same command goes on.
    """
    parser = budget.make_parser("fig7_ablation", __doc__, ["steps"])
    parser.add_argument("--photos", default="skimage", help="photographs to train on")
    parser.add_argument("--pairs", default="", help="pairs to train on")
    parser.add_argument("--val_photos", default="skimage-heldout", help="held-out photographs")
    parser.add_argument("--val", default="", help="held-out pairs")
    args = parser.parse_args(argv)
    unwind_on_signals()
    use_compilation_cache()
    inputs = [Path(f) for f in (args.photos, args.pairs, args.val) if f]
    options = budget.parse_options(args, inputs)
    fields = {
        "data.photos": args.photos,
        "data.pairs": args.pairs,
        "eval.photos": args.val_photos,
        "eval.pairs": args.val,
    }
    runs = {name: [train(name, options, seed, fields) for seed in options.seeds] for name in RUNS}
    notes = [
        budget.describe(options, scored=False)
        + f" `configs/noisetransfer.py:{options.budget.generator}`, "
        + f"{runs['full'][0]['steps']} steps a run.",
        f"Trained on photographs {args.photos or 'none'} and pairs {args.pairs or 'none'}; held "
        f"out: {args.val_photos or 'none'} and {args.val or 'none'}. Means over the kinds of "
        "noise and over seeds; lower is better.",
        *(
            f"{RUNS[name][0]}: {run['diverged']}"
            for name, seeds in runs.items()
            for run in seeds
            if run["diverged"]
        ),
    ]
    tables = {"AKLD and KS on held-out patches": table(runs)}
    figures = {"curves": draw(runs)}
    text = budget.write(
        options, "Figure 7: ablation of the losses", tables, notes, {"runs": runs}, figures
    )
    print(f"{text}\nresults: {options.output}")


if __name__ == "__main__":
    run_command(main)
