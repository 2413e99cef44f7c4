"""Anisotropic 3D gaussians that stand for a scene (Kerbl et al. 2023, section 4), in numpy."""

import dataclasses

import numpy as np
from scipy.spatial.transform import Rotation


@dataclasses.dataclass(frozen=True)
class Gaussians:
    """`n` gaussians of one colour each, seen alike from all sides.

    Attributes:
      means: [n, 3].
      scales: [n, 3] standard deviations along the gaussian's own axes, in the units of `means`.
      quaternions: [n, 4] (w, x, y, z), unit length: from the gaussian's own axes.
      opacities: [n] in [0, 1].
      colours: [n, 3] in [0, 1].
    """

    means: np.ndarray
    scales: np.ndarray
    quaternions: np.ndarray
    opacities: np.ndarray
    colours: np.ndarray

    def __len__(self) -> int:
        return len(self.means)

    def __getitem__(self, chosen: np.ndarray | slice) -> "Gaussians":
        """Some of them, in another order perhaps."""
        return Gaussians(*(getattr(self, field.name)[chosen] for field in dataclasses.fields(self)))

    def covariances(self) -> np.ndarray:
        """[n, 3, 3]."""
        axes = Rotation.from_quat(self.quaternions, scalar_first=True).as_matrix() * self.scales[:, None]
        return axes @ axes.swapaxes(1, 2)

    def transformed(self, similarity: np.ndarray) -> "Gaussians":
        """In other coordinates: `similarity` [4, 4] is a rotation times one scale, and a translation."""
        scale = np.cbrt(np.linalg.det(similarity[:3, :3]))
        turn = Rotation.from_matrix(similarity[:3, :3] / scale)
        return dataclasses.replace(
            self,
            means=self.means @ similarity[:3, :3].T + similarity[:3, 3],
            scales=self.scales * scale,
            quaternions=(turn * Rotation.from_quat(self.quaternions, scalar_first=True)).as_quat(scalar_first=True),
        )
