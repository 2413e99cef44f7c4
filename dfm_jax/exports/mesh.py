"""A scene's surface as a mesh with vertex colours: fused depths, and `.glb` files."""

from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from dfm_jax.exports import tsdf
from dfm_jax.exports.gltf import gltf_from_source, linear
from dfm_jax.exports.points import surface_points
from dfm_jax.exports.renderings import NothingOpaque, SceneViews
from dfm_jax.runs.output_folders import writing_file

RESOLUTION = 100  # voxels along the longest side of what is seen


def surface_mesh(views: SceneViews) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices [v, 3] in the scene's coordinates, faces [f, 3] and the vertices' colours [v, 3] in [0, 1]; all empty
    where nothing is opaque."""
    points = surface_points(views, over_samples=False)
    if not len(points):
        return np.zeros((0, 3)), np.zeros((0, 3), int), np.zeros((0, 3))
    grid = tsdf.Grid.around(points.positions, RESOLUTION)
    return tsdf.surface(tsdf.fuse(views.images, views.cameras, grid), grid)


def write(views: SceneViews, path: Path) -> dict[str, Any]:
    """Writes a `.glb`: vertices in the coordinates and units of the source, and a node that turns +Y up; returns how
    many vertices and faces it has.

    Raises:
      UserError: there is no surface, or the file cannot be written.
    """
    frame = views.scene.frame
    vertices, faces, colours = surface_mesh(views)
    if not len(faces):
        raise NothingOpaque(f"{path.name} was not written: nothing in the scene is opaque, so there is no surface")
    mesh = trimesh.Trimesh(
        vertices @ frame.to_source[:3, :3].T + frame.to_source[:3, 3],
        faces,
        vertex_colors=np.round(255 * linear(colours.clip(0, 1))).astype(np.uint8),
        process=False,
    )
    scene = trimesh.Scene(metadata=frame.to_json() | {"scale": frame.scale})
    scene.add_geometry(mesh, node_name="scene", geom_name="surface", transform=gltf_from_source(views.scene))
    with writing_file(path) as unfinished:
        unfinished.write_bytes(scene.export(file_type="glb", tree_postprocessor=_unlit))
    return {"vertices": len(vertices), "faces": len(faces)}


def _unlit(tree: dict[str, Any]) -> None:
    """Colours are what cameras see: no light is to fall on them once more."""
    name = "KHR_materials_unlit"
    material = {"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}, "doubleSided": True}
    tree["materials"] = [material | {"extensions": {name: {}}}]
    tree["extensionsUsed"] = [*tree.get("extensionsUsed", []), name]
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            primitive["material"] = 0
