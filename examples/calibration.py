"""Samples the hidden side of the toy scenes, and draws how often it is red, green or blue beside the true odds.

python examples/calibration.py --out=calibration.png                 # the model that ships
python examples/calibration.py --model=runs/toy --num_samples=240 --out=calibration.png
"""

import argparse

import dfm_jax
from dfm_jax.data.loading import evaluation_views, pipeline
from dfm_jax.data.loading.toy_scenes import HIDDEN_COLOURS, HIDDEN_PROBABILITIES
from dfm_jax.data.make_toy import with_data_set
from dfm_jax.evaluation.calibration.calibrate import read_colours, sample_images
from dfm_jax.visualization.figures import Figure, FigureCanvasAgg

WIDTH = 0.38


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="toy", help="a workdir, an export, or the name of the model that ships")
    parser.add_argument("--num_scenes", type=int, default=120)
    parser.add_argument("--num_samples", type=int, default=720, help="of all scenes together")
    parser.add_argument("--out", required=True)
    options = parser.parse_args()

    sampler = dfm_jax.load(options.model)
    config = with_data_set(sampler.config)
    data = pipeline.open_dataset(config.data.dir, config.data.name, config.data.eval_split)
    views = evaluation_views.evaluation_views(config.data, num_scenes=options.num_scenes)
    images = sample_images(config, sampler.params, views, config.sample, options.num_samples)
    seen = read_colours(data, views, images)
    shares = [count / seen.num_samples for count in seen.counts]

    figure = Figure(figsize=(5, 2.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = [tuple(colour) for colour in HIDDEN_COLOURS]
    places = range(len(colours))
    axes.bar([x - WIDTH / 2 for x in places], HIDDEN_PROBABILITIES, WIDTH, color="0.75", label="true odds")
    axes.bar([x + WIDTH / 2 for x in places], shares, WIDTH, color=colours, label=f"{seen.num_samples} samples")
    axes.set_xticks(list(places), ["red", "green", "blue"])
    axes.set_ylabel("share of samples")
    axes.set_title(
        f"The hidden side: total variation {seen.total_variation:.3f}, purity {seen.mode_purity:.2f}", size=10
    )
    axes.legend(frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(options.out)


if __name__ == "__main__":
    main()
