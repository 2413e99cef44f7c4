"""The page of `make demo`."""

import json

import pytest

from dfm_jax.errors import UserError
from dfm_jax.studies import demo


def samples(folder, step, names=("box",), in_3d=False):
    """A folder as --mode=sample leaves it, as far as the page reads it."""
    sample = {"rgb_video": "scene_00/sample_00/rgb.mp4", "poster": "scene_00/sample_00/poster.png"}
    about = {"contexts": ["scene_00/context_0.png"], "samples": [sample]}
    about["page_in_3d"] = "scene_00/in_3d.html" if in_3d else ""
    scenes = [{"name": name} | about for name in names]
    hidden = {"seen": [["red"]] * len(names), "purity": 0.5, "total_variation": 0.25}
    folder.mkdir(parents=True)
    summary = {"step": step, "context_psnr": 20.0, "hidden": hidden, "scenes": scenes}
    (folder / "samples.json").write_text(json.dumps(summary))
    return folder


def test_it_shows_both_models_beside_each_other(tmp_path, capsys):
    here, shipped = samples(tmp_path / "here" / "samples", 500), samples(tmp_path / "shipped", 6000, in_3d=True)
    assert demo.main([f"--out={tmp_path / 'here'}", f"Trained <here>={here}", f"The model that ships={shipped}"]) == 0
    page = (tmp_path / "here" / "index.html").read_text()
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["page"].endswith("index.html")
    assert 'src="samples/scene_00/sample_00/rgb.mp4"' in page and 'src="../shipped/scene_00/sample_00/rgb.mp4"' in page
    assert page.count("<iframe") == 1 and 'src="../shipped/scene_00/in_3d.html"' in page
    assert "Trained &lt;here&gt; (500 steps)" in page and "(6000 steps)" in page


def test_samples_of_other_scenes_are_refused(tmp_path):
    here, other = samples(tmp_path / "here", 500), samples(tmp_path / "other", 500, names=("another",))
    with pytest.raises(UserError, match="different scenes"):
        demo.write_demo_page(tmp_path, {"a": here, "b": other})
    with pytest.raises(UserError, match="holds no samples"):
        demo.write_demo_page(tmp_path, {"a": tmp_path})
