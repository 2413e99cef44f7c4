"""Reading what a command wrote and anything may have happened to since."""

import contextlib
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from dfm_jax.errors import UserError

# What reading JSON and numpy's archives, and looking into what they hold, may raise where they are damaged.
DAMAGE = (
    OSError,
    EOFError,
    ArithmeticError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    NotImplementedError,
    RecursionError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)


@contextlib.contextmanager
def reading(path: Path, cure: str) -> Iterator[None]:
    """A block that reads the file and looks into it, in which all that damage can raise becomes one error.

    Args:
      cure: what to do when the file is missing or damaged.

    Raises:
      UserError: the file is not what it should be.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"there is no {path}: {cure}") from error
    except DAMAGE as error:
        what = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(f"{path} is damaged ({type(error).__name__}: {what}): {cure}") from error
