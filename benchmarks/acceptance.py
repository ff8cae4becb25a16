"""Accept a model on scans of its own source and of another one, and adapt it to filtered and to other scans.

In the repository's root:  python benchmarks/acceptance.py --model models/brain-mri-v2 --data LABELLED/Testing --other OTHER.csv

Writes OUTPUT.json (all numbers, machine, versions, command) and OUTPUT.md: what `mribatch accept` and `mribatch adapt` said.
OUTPUT/ keeps the pages, the filtered copies and the adapted models.
"""

import csv
import json
import logging
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import bare
import machine
import numpy as np
import recorded
import tyro
from honesty_scans import Scans, listed, one_of_each_cluster, sample
from PIL import Image

from mribatch import AcceptConfig, AdaptConfig, accept, adapt
from mribatch.errors import InputError, MribatchError
from mribatch.models import directory
from mribatch.scans.limits import ImageSpec
from mribatch.training.augment_intensity import equalized_locally

log = logging.getLogger("bench")

_SIDE_PX = 224  # at which filtered copies are written
_TILES, _CLIP = 8, 4.0  # of CLAHE


@dataclass(frozen=True, kw_only=True)
class SiteConfig:
    """Which model, and which scans."""

    model: str
    """Model directory."""

    data: str
    """Held-back labelled scans of the training scans' source: class folders or a manifest."""

    other: str
    """Labelled scans of another source: class folders or a manifest."""

    scans: int = 200
    """Scans drawn of --data, one of each near-copy cluster, spread over the classes."""

    seed: int = 0
    """Decides which scans are drawn."""

    output: str = "out/acceptance"
    """Path of the results without extension, and folder of the pages."""


def main(argv: Sequence[str] | None = None) -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        print(measure(tyro.cli(SiteConfig, args=words, description=__doc__), words))
    except MribatchError as err:
        print(f"error: {err}", file=sys.stderr)
        return err.exit_code
    return 0


def measure(config: SiteConfig, words: Sequence[str]) -> str:
    """Accept and adapt, write both files and return the Markdown. words: the command line, for the record.

    Raises what `accept` and `adapt` raise for scans and models that are missing or do not fit.
    """
    place, labels = Path(config.output), directory.load_model(config.model).labels
    place.mkdir(parents=True, exist_ok=True)
    public = sample(one_of_each_cluster(listed(config.data, labels), config.seed), config.scans, config.seed)
    own = write_manifest(public, labels, place / "own.csv")
    copies = filtered(public, place / "clahe")
    clahe = write_manifest(copies, labels, place / "clahe.csv")
    accepted = {
        "another source": accepted_on(config, config.other, "other"),
        "held-back scans, one of each near-copy cluster": accepted_on(config, own, "own"),
    }
    other = listed(config.other, labels)
    adapted = [
        adapted_to(config, "held-back scans after CLAHE", copies, "the same", clahe),
        adapted_to(config, "another source", other, "the same", config.other),
        adapted_to(config, "another source", other, "held-back scans", own),
        adapted_to(config, "held-back scans", public, "all held-back scans", config.data),
    ]
    command = recorded.portable("acceptance", words)
    facts = {"model": config.model, "command": command, **machine.facts(), "accepted": accepted, "adapted": adapted}
    Path(f"{config.output}.json").write_text(json.dumps(facts, indent=1) + "\n")
    markdown = page_of(facts)
    Path(f"{config.output}.md").write_text(markdown)
    return markdown


def filtered(scans: Scans, folder: Path) -> Scans:
    """Write copies of scans after CLAHE, and return them with the labels that they had."""
    folder.mkdir(exist_ok=True)
    copies = []
    for number, uri in enumerate(scans.uris):
        grey = Image.fromarray(bare.pixels([uri], ImageSpec(side_px=_SIDE_PX))[0]).convert("L")
        copy = folder / f"{number:04}.png"
        Image.fromarray(equalized_locally(np.asarray(grey), tiles=_TILES, clip=_CLIP)).save(copy)
        copies.append(str(copy.resolve()))
    return Scans(tuple(copies), scans.truth)


def write_manifest(scans: Scans, labels: Sequence[str], path: Path) -> str:
    """Write scans as a manifest (uri, label), and return its path."""
    with path.open("w", newline="") as lines:
        rows = csv.writer(lines)
        rows.writerow(("uri", "label"))
        rows.writerows(
            (str(Path(uri).resolve()), labels[number]) for uri, number in zip(scans.uris, scans.truth, strict=True)
        )
    return str(path)


def accepted_on(config: SiteConfig, data: str, name: str) -> Mapping[str, Any]:
    """Return what `mribatch accept` says of the model on labelled scans."""
    log.info("accepting on %s …", name)
    return accept(AcceptConfig(model=config.model, data=data, output=f"{config.output}/accepted-{name}")).acceptance


def adapted_to(config: SiteConfig, site: str, scans: Scans, judges: str, data: str) -> dict[str, Any]:
    """Return what `mribatch adapt` does with the model: the comparison on labelled scans, or the refusal."""
    log.info("adapting to %s …", site)
    output = Path(config.output) / "adapted"
    shutil.rmtree(output, ignore_errors=True)
    row = {"site": site, "judges": judges}
    try:
        result = adapt(AdaptConfig(model=config.model, input=scans.uris, data=data, output=str(output)))
    except InputError as err:
        return row | {"refused": str(err).partition(": keep the model")[0]}
    assert result.duel is not None  # --data was given
    return row | {"scans": result.scans, "duel": asdict(result.duel)}


def page_of(facts: Mapping[str, Any]) -> str:
    """Return the figures as Markdown."""
    host = facts["machine"]
    lines = [
        "| accepted on | scans | balanced accuracy | referred | verdict | why |",
        "|---|---|---|---|---|---|",
        *(_accepted_row(name, one) for name, one in facts["accepted"].items()),
        "",
        "| adapted to | labelled scans | balanced accuracy before | after | |",
        "|---|---|---|---|---|",
        *map(_adapted_row, facts["adapted"]),
        "",
        f"`{facts['command']}`",
        "",
        f"{host['cpu']}, {host['cores']} cores; commit {str(facts['git_commit'])[:12]}.",
    ]
    return "\n".join(lines) + "\n"


def _accepted_row(name: str, acceptance: Mapping[str, Any]) -> str:
    referral = acceptance["referral"]
    referred = "–" if referral is None else f"{referral['share']:.1%}"
    accuracy, scans = acceptance["balanced_accuracy"], acceptance["data"]["scans"]
    reasons = "; ".join(acceptance["reasons"]) or "every threshold holds"
    return f"| {name} | {scans} | {accuracy:.1%} | {referred} | `{acceptance['verdict']}` | {reasons} |"


def _adapted_row(row: Mapping[str, Any]) -> str:
    if "refused" in row:
        return f"| {row['site']} | {row['judges']} | | | refused: {row['refused']} |"
    duel = row["duel"]
    cells = f"{row['judges']}, {duel['scans']}", f"{duel['before']:.1%}", f"{duel['after']:.1%}", "written"
    return f"| {row['scans']} scans: {row['site']} | {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
