"""Write all cases into a folder: files/, the right pixels in reference/FILE.FRAME.png, and the answers in expected.json.

python -m tests.dicom_cases FOLDER
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from tests.dicom_cases import CASES

__all__ = ["main"]

USAGE = "python -m tests.dicom_cases FOLDER: name the folder to write"


def main(argv: Sequence[str]) -> int:
    """Write the cases and return the exit code."""
    if len(argv) != 1:
        print(USAGE, file=sys.stderr)
        return 2
    root, answers = Path(argv[0]), []
    (root / "reference").mkdir(parents=True, exist_ok=True)
    for name, make in CASES.items():
        case, path = make(), root / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(case.data)
        for number, pixels in enumerate(case.frames):
            Image.fromarray(pixels).save(root / "reference" / f"{name.replace('/', '_')}.{number}.png")
        answers.append({"file": name, "bytes": len(case.data), **case.answer()})
    (root / "expected.json").write_text(json.dumps(answers, indent=1) + "\n")
    print(f"{len(answers)} files in {root / 'files'}, their answers in {root / 'expected.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
