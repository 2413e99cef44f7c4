"""Which accelerator is here, without taking it."""

import subprocess


def device_name() -> str:
    """The name of the first GPU, or 'CPU'."""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        names = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout.split("\n")
    except (OSError, subprocess.SubprocessError):
        return "CPU"
    return names[0].strip() or "CPU"
