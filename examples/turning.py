"""Samples scenes from one photograph, and writes an animated picture (WebP or GIF) of them turning side by side.

python examples/turning.py --out=turning.webp                    # the model and the photograph that ship
python examples/turning.py --model=runs/toy --photo=box.png --out=turning.gif
"""

import argparse

import jax
import numpy as np
from PIL import Image

import dfm_jax
from dfm_jax.sampling.trajectories import make_path
from dfm_jax.visualization.pictures import fit, to_uint8

FRAME_MS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="toy", help="a workdir, an export, or the name of a model that ships")
    parser.add_argument("--photo", help="a picture; without it, the example of the model that ships")
    parser.add_argument("--num_samples", type=int, default=6)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--side", type=int, default=96, help="of each scene, pixels")
    parser.add_argument("--frames", type=int, default=36, help="of one turn")
    parser.add_argument("--out", required=True)
    options = parser.parse_args()

    sampler = dfm_jax.load(options.model)
    photo = options.photo or dfm_jax.example_photo("toy")
    scenes = sampler.sample(photo, num_samples=options.num_samples, seed=options.seed)

    near, far = scenes[0].bounds
    cameras = jax.tree.map(lambda *x: np.stack(x), scenes[0].context_camera, scenes[0].target_camera)
    path = make_path("orbit", cameras, target=1, near=near, far=far, num_frames=options.frames)
    size = options.side, options.side
    turning = np.concatenate([scene.render(path.camera, *size).rgb for scene in scenes], axis=2)[path.order]
    context = fit(scenes.sampled.example.context.images[0, 0], options.side) / 255
    frames = [Image.fromarray(to_uint8(np.concatenate([context, frame], axis=1))) for frame in turning]
    frames[0].save(options.out, save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0, quality=80)


if __name__ == "__main__":
    main()
