"""The checkers of `test_layering.py`, on sources that break one rule each."""

import graphlib

import pytest

from tests.test_layering import import_graph, part_graph, reached, too_long, violations


@pytest.mark.parametrize(
    ("module", "source", "problem"),
    [
        ("geometry", "from dfm_jax.models.dit import DiTEncoder", "imports dfm_jax.models.dit.DiTEncoder"),
        ("geometry", "import dfm_jax.models.dit", "imports dfm_jax.models.dit"),
        ("geometry", "from dfm_jax import config", "imports dfm_jax.config"),
        ("geometry", "from . import models", "relative import of ..models"),
        ("diffusion.process", "from dfm_jax.structs import Camera", "imports dfm_jax.structs.Camera"),
        ("rendering.render", "from dfm_jax.models import dit", "imports dfm_jax.models.dit"),
        ("data.pipeline", "from dfm_jax.rendering.render import render", "imports dfm_jax.rendering.render.render"),
        ("forward_models.protocol", "def f():\n    import dfm_jax.denoiser", "imports dfm_jax.denoiser"),
        ("losses", "from dfm_jax.training import step", "imports dfm_jax.training.step"),
        ("main", "import dfm_jax.data.loading.pipeline", "imports dfm_jax.data.loading.pipeline"),
        ("denoiser", "import jax\n@jax.jit\ndef f(x): return x", "uses jax.jit"),
        ("denoiser", "from jax import jit", "uses jax.jit"),
        ("denoiser", "import jax as j\nf = partial(j.jit, static_argnums=0)", "uses jax.jit"),
        ("training.step", "from jax.sharding import PartitionSpec", "uses jax.sharding.PartitionSpec"),
        ("training.step", "from jax import lax\nlax.psum(x, 'data')", "uses jax.lax.psum"),
        ("training.step", "rule = ('kernel', 'fsdp')", "names the mesh axis 'fsdp'"),
        ("training.sharding", "import jax\njax.pmap(f)", "uses jax.pmap"),
        ("config.schema", "from ml_collections import ConfigDict", "uses ml_collections.ConfigDict"),
        ("losses", "from dfm_jax.config.reading import from_dict", "uses dfm_jax.config.reading.from_dict"),
        ("data.prepare", "from dfm_jax.config import command_line", "uses dfm_jax.config.command_line"),
        ("forward_models.protocol", "import flax.linen as nn", "uses flax.linen"),
        ("forward_models.protocol", "from flax import linen", "uses flax.linen"),
        ("data.pipeline", "import tensorflow as tf", "uses tensorflow"),
        ("runs.checkpoints", "import torch", "uses torch"),
        (
            "interop.published",
            "from dfm_jax.training import sharding",
            "uses dfm_jax.training.sharding",
        ),
        ("data.prepare", "def f():\n    import apache_beam as beam", "uses apache_beam"),
        ("gui", "", "a new part of the package needs a line in MAY_IMPORT"),
    ],
)
def test_checker_finds(module, source, problem):
    assert f"{module}: {problem}" in violations(module, source)


def test_checker_accepts_what_is_allowed():
    allowed = {
        "training.sharding": "import jax\nfrom jax.sharding import PartitionSpec as P\njax.jit(f, P('fsdp'))",
        "losses": "import jax.numpy as jnp\nfrom dfm_jax.denoiser import predict\nfrom dfm_jax.rendering import render",
        "main": "from dfm_jax.config import command_line\ndef f():\n    from dfm_jax.training.loop import train",
        "models.dit": "import flax.linen as nn\nfrom flax import struct",
    }
    for module, source in allowed.items():
        assert violations(module, source) == []


def test_checker_finds_circles():
    circle = {
        "training.loop": "from dfm_jax.commands import sample",
        "commands.sample": "import dfm_jax.training.loop",
    }
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(import_graph(circle)).prepare()


def test_checker_finds_circles_of_folders():
    graph = import_graph(
        {
            "data.preparing.bounds": "from dfm_jax.data.builders.source import Rejected",
            "data.builders.source": "",
            "data.builders.captures": "from dfm_jax.data.preparing import camera_checks",
            "data.preparing.camera_checks": "",
        }
    )
    graphlib.TopologicalSorter(graph).prepare()  # of modules there is none
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(part_graph(graph)).prepare()


def test_checker_finds_importers_that_are_reached_by_others():
    sources = {
        "training.loop": "def f():\n    from dfm_jax.data.loading import toy_data",
        "data.loading.toy_data": "from dfm_jax.data.preparing import building",
        "data.preparing.building": "",
    }
    assert reached(import_graph(sources), "training.loop") == sources.keys()


def test_checker_finds_what_is_long():
    long = "def f():\n" + "    x = 1\n" * 50
    assert too_long(long) == ["f: 51 lines"] and too_long(long.replace("    x = 1\n", "", 1)) == []
    assert too_long("x = 1\n" * 301) == ["the file: 301 lines"] and too_long("x = 1\n" * 300) == []
