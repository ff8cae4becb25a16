"""The command `mribatch`, also as `python -m mribatch`: runs one command under its supervisor."""

import sys
from collections.abc import Sequence
from functools import partial

from mribatch.cluster.supervisor import supervised
from mribatch.commands.cli import run

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run `mribatch` with these words, by default those of this process, and return its exit code."""
    return supervised(partial(run, sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
