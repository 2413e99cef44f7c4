"""Samples scenes from one photograph, and writes a contact sheet: each scene from the photograph's camera, and from
where the photograph shows nothing, with its depth.

    python examples/contact_sheet.py --out=sheet.png                 # the model and the photograph that ship
    python examples/contact_sheet.py --model=runs/toy --photo=box.png --out=sheet.png
"""

import argparse

import numpy as np
from PIL import Image

import dfm_jax
from dfm_jax.visualization.pictures import colour_depth, grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="toy", help="a workdir, an export, or the name of a model that ships")
    parser.add_argument("--photo", help="a picture; without it, the example of the model that ships")
    parser.add_argument("--num_samples", type=int, default=6)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--side", type=int, default=96, help="of each rendering, pixels")
    parser.add_argument("--out", required=True)
    options = parser.parse_args()

    sampler = dfm_jax.load(options.model)
    photo = options.photo or dfm_jax.example_photo("toy")
    scenes = sampler.sample(photo, num_samples=options.num_samples, seed=options.seed)

    size = options.side, options.side
    again = [scene.render(scene.context_camera, *size) for scene in scenes]
    novel = [scene.render(scene.target_camera, *size) for scene in scenes]
    depth = [colour_depth(view.depth, *scene.bounds) for view, scene in zip(novel, scenes, strict=True)]
    context = Image.fromarray(np.uint8(255 * scenes.sampled.example.context.images[0, 0] + 0.5))
    rows = [
        [np.asarray(context.resize(size, Image.Resampling.NEAREST)) / 255, *(view.rgb for view in again)],
        [None, *(view.rgb for view in novel)],
        [None, *depth],
    ]
    labels = ["photograph", *(f"scene {i + 1}" for i in range(len(scenes)))]
    Image.fromarray(grid(rows, labels, side=options.side)).save(options.out)


if __name__ == "__main__":
    main()
