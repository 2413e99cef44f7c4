"""Which picture a camera is for: the one that lies in the file, or the one that viewers show.

Photographs have EXIF data that say how to turn them. COLMAP, and most of what is built on it, takes the pixels as they
lie; other programs turn them first. Width and height tell, where turning swaps them; all photographs of a capture went
through one program, so that those which tell speak for the others. Where none tells (half turns, square pictures), the
pictures do: points that they share must lie on their epipolar lines.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from dfm_jax.data.loading import transforms
from dfm_jax.data.pictures import orientation
from dfm_jax.data.pictures.pictures import Header
from dfm_jax.data.preparing import epipolar, pose_conventions
from dfm_jax.errors import Rejected

SIZE_TOLERANCE = 2  # pixels by which a scaled copy may miss the lens's aspect: sides are rounded
VIEWS, OTHERS = 4, 3  # pairs of pictures that are compared
BETTER = 2.0  # factor between the errors of the two readings from which one is right
INVERSE = {6: 8, 8: 6}  # orientations whose turns undo each other; the others undo themselves
UNKNOWN = (
    "the pictures do not tell whether the cameras are for them as they lie in their files or as their EXIF data turn "
    "them; they are taken as they lie"
)


@dataclasses.dataclass(frozen=True)
class View:
    """A picture with its camera, both for the picture as it lies in the file."""

    header: Header | None  # None: it is no picture
    size: tuple[float, float]  # width and height of the picture that the camera is for; only their ratio counts
    camera_to_world: np.ndarray  # [4, 4]
    intrinsics: np.ndarray  # [3, 3]
    load: Callable[[bool], Image.Image]  # RGB, as it lies or, if told so, as shown; raises Rejected

    @property
    def orientation(self) -> int:
        return self.header.orientation if self.header else orientation.UPRIGHT

    @property
    def fits(self) -> tuple[bool, bool]:
        """Whether the camera can be for the picture as it lies, and as shown."""
        if self.header is None:
            return True, True
        shown = orientation.shown_size(self.header.size, self.header.orientation)
        return fits(self.header.size, self.size), fits(shown, self.size)


def fits(picture: tuple[int, int], size: tuple[float, float]) -> bool:
    """Whether a picture of a width and height may be a scaled copy of one of a `size`."""
    width, height = size
    return abs(picture[0] * (height / width) - picture[1]) <= SIZE_TOLERANCE * max(1, height / width)


def are_for_shown(views: Sequence[View]) -> tuple[list[bool], list[str]]:
    """Whether each view's camera is for the picture as shown; and warnings."""
    turned = [view.orientation != orientation.UPRIGHT for view in views]
    told = [is_turned and view.fits == (False, True) for view, is_turned in zip(views, turned, strict=True)]
    unclear = [i for i, view in enumerate(views) if turned[i] and view.fits == (True, True)]
    if not unclear:
        return told, []
    others = {told[i] for i, view in enumerate(views) if turned[i] and view.fits.count(True) == 1}
    shown = others.pop() if len(others) == 1 else _pictures_say_shown(views, told, unclear)
    answers = [bool(shown) if i in unclear else answer for i, answer in enumerate(told)]
    return answers, [UNKNOWN] if shown is None else []


def _pictures_say_shown(views: Sequence[View], told: Sequence[bool], unclear: Sequence[int]) -> bool | None:
    """Whether the unclear views' cameras are for the pictures as shown; None: their pictures do not tell."""
    squares: dict[int, tuple[Image.Image, np.ndarray]] = {}

    def square(i: int) -> tuple[Image.Image, np.ndarray]:
        if i not in squares:
            try:
                image, intrinsics = transforms.center_square(views[i].load(told[i]), views[i].intrinsics)
                image.thumbnail((epipolar.MAX_SIZE, epipolar.MAX_SIZE))  # some dozen are held
                squares[i] = image, intrinsics
            except Rejected:  # reported when its turn comes
                squares[i] = Image.new("RGB", (16, 16)), views[i].intrinsics
        return squares[i]

    poses = np.stack([view.camera_to_world for view in views])
    # Points of a mirrored picture are found in no other one, and turning does not bring them back.
    pairs = epipolar.match_views(lambda i: np.asarray(square(i)[0]), poses, VIEWS, OTHERS, among=unclear)
    if sum(len(pair.a) for pair in pairs) < pose_conventions.MIN_MATCHES:
        return None
    lying = np.stack([square(i)[1] if i in squares else view.intrinsics for i, view in enumerate(views)])
    turned_poses, turned = np.array(poses), np.array(lying)
    for i in unclear:
        # The camera of the picture as it lies, if the one that is known is the shown picture's. Squares turn in place.
        back = INVERSE.get(views[i].orientation, views[i].orientation)
        turned_poses[i], turned[i] = orientation.turn_camera(poses[i], lying[i], back)
    error, ahead = epipolar.pooled(pairs, poses, lying)
    turned_error, turned_ahead = epipolar.pooled(pairs, turned_poses, turned)
    right = ahead >= pose_conventions.MIN_AHEAD and error <= pose_conventions.FITS
    turned_right = turned_ahead >= pose_conventions.MIN_AHEAD and turned_error <= pose_conventions.FITS
    if right and turned_right:
        right, turned_right = BETTER * error <= turned_error, BETTER * turned_error <= error
    return turned_right if right != turned_right else None
