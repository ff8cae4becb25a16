"""Write the model card of an exported model in Markdown: from which model, how it compares with it, and how fast it is."""

from collections.abc import Mapping
from typing import Any

from mribatch.models.card import evidence_section
from mribatch.statistics.shares import percent

__all__ = ["exported_card", "verdict"]

_PAYS = 1.05  # less is within what measurements differ by

_HOW = {
    "int8": """Weights and activations are 8-bit integers: post-training quantization with NNCF {nncf}, no training (Jacob et al. 2018).
The range of each activation is that in {scans} calibration scans (fingerprint `{content_sha256:.12}`). OpenVINO computes the
graph in `graph.xml`. Processors without VNNI or AMX round otherwise, so a few scans may get another class there.""",
    "bf16": """The weights are those of model {from}. OpenVINO computes with them in bfloat16, which has 8 significant bits, on
processors with AVX-512 BF16 or AMX, and the model is refused on others.""",
}


def verdict(rates: Mapping[str, Any]) -> str:
    """Say how fast an exported model is, and whether that pays, from what model.json says of its rates."""
    pays = "" if rates["ratio"] >= _PAYS else ": it does not pay here"
    return f"{rates['ratio']:.2f} × as fast as in float32 on {rates['processor']}{pays}"


def exported_card(facts: Mapping[str, Any]) -> str:
    """Return MODEL_CARD.md of an exported network, from the facts of its model.json; `{digest}` and `{name}` stay in the text."""
    how, libraries = facts["exported"], facts["libraries"]
    made = ", ".join(f"{name} {number}" for name, number in libraries.items())
    return f"""# Model {{digest}}

**Research and triage tool, not a medical device.** Do not base a diagnosis on its output alone.

Model {how["from"]} in {facts["precision"]}.

{evidence_section(facts)}

The figures on the card of model {how["from"]} are not those of this model.

## What changed

{_HOW[facts["precision"]].format(**how, **libraries)}{_referral(facts)}

{_comparison(how["compared"])}

**{verdict(how["rates"])}**: {how["rates"]["after"]:.2f} scans per second of a core, {how["rates"]["before"]:.2f} before, both
computed by OpenVINO in turns, without reading and decoding.

## Use

Classifies one brain-MRI image into {", ".join(facts["labels"])}. It only scores: explain, calibrate, adapt and train model
{how["from"]}, then export it again.

```
mribatch score --model {{name}} --input samples --output predictions
mribatch evaluate --model {{name}} --data LABELLED --output evaluation
```

## Training and limits

See the card of model {how["from"]}.

Created {facts["created_at"]} with {made}.
"""


def _referral(facts: Mapping[str, Any]) -> str:
    kept = [
        name
        for key, name in (("temperature", "the temperature"), ("referral", "the referral thresholds"))
        if key in facts
    ]
    if not kept:
        return ""
    return f"\n\nAs model {facts['exported']['from']} has them: {' and '.join(kept)}. They were not fitted again: see below whether as many scans are\nreferred as before."


def _comparison(counts: Mapping[str, Any]) -> str:
    scans = counts["scans"]
    same = f"the same class for {percent(counts['same'] / scans)} of {scans:,} scans"
    if counts["calibrated_on"]:
        same += f", {counts['calibrated_on']:,} of which are calibration scans"
    rows = [
        f"| {name} | {_share(counts[f'before_{key}'], scans)} | {_share(counts[f'after_{key}'], scans)} |"
        for key, name in (("right", "right"), ("referred", "referred to a person"))
        if counts[f"before_{key}"] is not None
    ]
    table = "\n".join(["", "", f"| {scans:,} scans | before | after |", "|---|---|---|", *rows]) if rows else ""
    unknown = (
        ""
        if counts["before_right"] is not None
        else " They have no labels: nothing is known of which model is right more often."
    )
    return f"Both models give {same}.{unknown}{table}"


def _share(count: int, scans: int) -> str:
    return f"{count:,} ({percent(count / scans)})"
