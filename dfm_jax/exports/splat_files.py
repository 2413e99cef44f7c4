"""Files of gaussians: `.ply` in the layout of Kerbl et al., and `.glb` with the extension KHR_gaussian_splatting."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import plyfile
import pygltflib
from tqdm import tqdm

from dfm_jax.exports.fitting import NUM_STEPS, fit_to, psnr
from dfm_jax.exports.gaussians import Gaussians
from dfm_jax.exports.gltf import gltf_from_source, linear
from dfm_jax.exports.protocol import Frame
from dfm_jax.exports.renderings import SceneViews
from dfm_jax.runs.barriers import is_first
from dfm_jax.runs.output_folders import writing_file

EXTENSION = "KHR_gaussian_splatting"
SH_0 = 0.28209479177387814  # the spherical harmonic of degree 0: colours are 0.5 more than that times its coefficient
MOST_OPAQUE = 1 - 1e-6  # that a logit can be taken of
COLUMNS = ("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity")
COLUMNS += ("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3")


@functools.lru_cache(maxsize=1)  # several formats are written of one scene after the other
def fitted(views: SceneViews) -> tuple[Gaussians, float]:
    """Gaussians of a scene, in its own coordinates, and their PSNR to it in dB; while they are fitted, progress shows.

    Raises:
      UserError: nothing in the scene is opaque.
    """
    with tqdm(total=NUM_STEPS, unit="step", desc="fitting gaussians", disable=not is_first()) as bar:
        gaussians = fit_to(views, progress=lambda done, total: bar.update())
    return gaussians, psnr(gaussians, views)


def write_ply(views: SceneViews, path: Path) -> dict[str, Any]:
    """Fits gaussians and writes a `.ply` of them in the coordinates of the source; returns how many there are, and
    their PSNR to the scene.

    Raises:
      UserError: nothing in the scene is opaque, or the file cannot be written.
    """
    gaussians, quality = fitted(views)
    with writing_file(path) as unfinished:
        to_ply(gaussians.transformed(views.scene.frame.to_source), views.scene.frame).write(str(unfinished))
    return {"gaussians": len(gaussians), "psnr_to_field": quality}


def write_glb(views: SceneViews, path: Path) -> dict[str, Any]:
    """The same as a `.glb`: gaussians in the coordinates of the source, and a node that turns +Y up."""
    gaussians, quality = fitted(views)
    frame = views.scene.frame
    gltf = to_gltf(gaussians.transformed(frame.to_source), gltf_from_source(views.scene))
    gltf.extras = frame.to_json() | {"scale": frame.scale}
    with writing_file(path) as unfinished:
        unfinished.write_bytes(b"".join(gltf.save_to_bytes()))
    return {"gaussians": len(gaussians), "psnr_to_field": quality}


def to_ply(gaussians: Gaussians, frame: Frame) -> plyfile.PlyData:
    """Opacities are logits, scales logarithms, colours coefficients of the spherical harmonic of degree 0."""
    opacities = gaussians.opacities.clip(1 - MOST_OPAQUE, MOST_OPAQUE)
    parts = (
        gaussians.means,
        np.zeros_like(gaussians.means),  # normals, which nobody reads, and everybody expects
        (gaussians.colours - 0.5) / SH_0,
        np.log(opacities / (1 - opacities))[:, None],
        np.log(gaussians.scales),
        gaussians.quaternions,
    )
    vertices = np.empty(len(gaussians), [(name, "f4") for name in COLUMNS])
    for name, column in zip(COLUMNS, np.concatenate(parts, axis=-1).T, strict=True):
        vertices[name] = column
    comments = [f"dfm_jax: frame {frame.name}, {frame.scale:.9g} of its units in one of the model"]
    return plyfile.PlyData([plyfile.PlyElement.describe(vertices, "vertex")], comments=comments)


def to_gltf(gaussians: Gaussians, node: np.ndarray) -> pygltflib.GLTF2:
    """Points, which programs that know the extension draw as gaussians.

    Args:
      node: [4, 4] what turns their coordinates into glTF's.
    """
    own = {
        "ROTATION": np.roll(gaussians.quaternions, -1, axis=-1),  # (x, y, z, w)
        "SCALE": gaussians.scales,
        "OPACITY": gaussians.opacities[:, None],
        "SH_DEGREE_0_COEF_0": (gaussians.colours - 0.5) / SH_0,
    }
    arrays = {"POSITION": gaussians.means} | {f"{EXTENSION}:{name}": array for name, array in own.items()}
    arrays["COLOR_0"] = np.concatenate([linear(gaussians.colours), gaussians.opacities[:, None]], axis=-1)
    blobs = [np.ascontiguousarray(array, np.float32).tobytes() for array in arrays.values()]
    starts = np.cumsum([0, *map(len, blobs)])
    gltf = pygltflib.GLTF2(
        scene=0,
        scenes=[pygltflib.Scene(nodes=[0])],
        nodes=[pygltflib.Node(mesh=0, name="scene", matrix=node.T.ravel().tolist())],  # column by column
        meshes=[pygltflib.Mesh(primitives=[_primitive(list(arrays))])],
        accessors=[_accessor(i, array) for i, array in enumerate(arrays.values())],
        bufferViews=[
            pygltflib.BufferView(buffer=0, byteOffset=int(start), byteLength=len(blob))
            for start, blob in zip(starts, blobs, strict=False)
        ],
        buffers=[pygltflib.Buffer(byteLength=int(starts[-1]))],
        extensionsUsed=[EXTENSION],
    )
    gltf.set_binary_blob(b"".join(blobs))
    return gltf


def _primitive(names: list[str]) -> pygltflib.Primitive:
    """Of the attributes of these names, in their order."""
    attributes = pygltflib.Attributes()
    for i, name in enumerate(names):
        setattr(attributes, name, i)
    said = {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}
    return pygltflib.Primitive(attributes=attributes, mode=pygltflib.POINTS, extensions={EXTENSION: said})


def _accessor(view: int, array: np.ndarray) -> pygltflib.Accessor:
    kind = {1: pygltflib.SCALAR, 3: pygltflib.VEC3, 4: pygltflib.VEC4}[array.shape[-1]]
    bounds = {"min": array.min(0).tolist(), "max": array.max(0).tolist()} if view == 0 else {}  # of positions alone
    return pygltflib.Accessor(bufferView=view, componentType=pygltflib.FLOAT, count=len(array), type=kind, **bounds)
