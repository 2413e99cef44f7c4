"""The fuzzer: damages a fresh copy of a target again and again, and has it read.

    python -m tests.fuzzing.run TARGET SEED COUNT

prints one JSON object before and one after each try: `test_fuzz.py` then knows which damage ended the process, or made
it hang.
"""

import contextlib
import faulthandler
import io
import json
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

import numpy as np

from dfm_jax.errors import UserError
from tests.fuzzing.mutations import Rng
from tests.fuzzing.targets import TARGETS, Target

HANGS_AFTER = 120  # seconds
LONGEST_ERROR = 3000  # characters; a message that lists what is wrong with each file may be long


def damage(target: Target, folder: Path, rng: Rng) -> str:
    """Damages one file below the folder; says which and how."""
    pattern, ways = target.damage[int(rng.integers(len(target.damage)))]
    files = sorted(path for path in folder.glob(pattern) if path.is_file())
    path, way = files[int(rng.integers(len(files)))], ways[int(rng.integers(len(ways)))]
    way(path, rng)
    return f"{way.__name__} {path.relative_to(folder)}"


def judge(target: Target, folder: Path, out: Path, intact: int | None) -> str:
    """Reads what is in the folder; what is wrong with how that went, or ''."""
    errors, output = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(output):
            code = target.read(folder, out) or 0
    except UserError as error:
        print(f"error: {error}", file=errors)
        code = 1
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=errors)
        code = error.code if isinstance(error.code, int) else 1
    except Exception:
        return traceback.format_exc()
    text = errors.getvalue()
    if "Traceback" in text:
        return f"a traceback was printed: {text[-1500:]}"
    if code not in (0, 1):
        return f"exit code {code}"
    if code == 1 and (sum(line.startswith("error: ") for line in text.splitlines()) != 1 or len(text) > LONGEST_ERROR):
        return f"exit code 1 without one clear error: {text[-1500:]}"
    return lost(target, folder, output.getvalue(), intact) if code == 0 else ""


def lost(target: Target, folder: Path, output: str, intact: int | None) -> str:
    """What a successful preparation does not account for, or ''."""
    lines = [line for line in output.splitlines() if line.startswith("{")]
    counts = json.loads(lines[-1]) if lines else {}
    if "quarantined_frames" not in counts:
        return ""
    there = target.frames(folder) if target.frames else intact
    found = counts["frames"] + counts["quarantined_frames"]
    # A scene that cannot be read at all is one line of the quarantine, of however many frames.
    if there is None or found >= there or counts["quarantined_scenes"]:
        return ""
    return f"of {there} frames only {counts['frames']} were taken and {counts['quarantined_frames']} quarantined"


def count(target: Target, folder: Path) -> int | None:
    """Frames of the undamaged source."""
    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stderr(io.StringIO()):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            assert not target.read(folder, Path(out)), f"the undamaged source is refused: {output.getvalue()}"
    lines = [line for line in output.getvalue().splitlines() if line.startswith("{")]
    return json.loads(lines[-1]).get("frames") if lines else None


def main(name: str, seed: int, tries: int) -> None:
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as room:
        whole = Path(room) / "whole"
        whole.mkdir()
        target.write(whole)
        intact = count(target, whole)
        for i in range(tries):
            rng = np.random.default_rng((seed, i))
            folder, out = Path(room) / f"source{i}", Path(room) / f"out{i}"
            shutil.copytree(whole, folder)
            out.mkdir()
            print(json.dumps({"try": i, "damage": damage(target, folder, rng)}), flush=True)
            faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
            problem = judge(target, folder, out, intact)
            faulthandler.cancel_dump_traceback_later()
            print(json.dumps({"try": i, "problem": problem}), flush=True)
            shutil.rmtree(folder)
            shutil.rmtree(out)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
