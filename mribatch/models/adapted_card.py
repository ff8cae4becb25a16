"""Write the model card of an adapted model in Markdown: from which model, by which scans, and what is known of it."""

from collections.abc import Mapping
from typing import Any

from mribatch.statistics.shares import percent

__all__ = ["adapted_card"]


def adapted_card(facts: Mapping[str, Any]) -> str:
    """Return MODEL_CARD.md of an adapted network, from the facts of its model.json; `{digest}` and `{name}` stay in the text."""
    how = facts["adapted"]
    libraries = ", ".join(f"{name} {number}" for name, number in facts["libraries"].items())
    return f"""# Model {{digest}}

**Research and triage tool, not a medical device.** Do not base a diagnosis on its output alone.

Model {how["from"]}, adapted to the scans of one site. Do not use it anywhere else.

## Test results

{_results(how["labelled"])}

There is no other evidence. The figures on the card of model {how["from"]} are not those of this model.

## What changed

The means and variances of all {how["layers"]} batch normalizations were estimated anew on {how["scans"]} unlabelled scans of the site, \
in batches of about {how["batch_scans"]} (AdaBN: Li et al. 2016, Nado et al. 2020). No weight was trained. Temperature and referral
thresholds, if the model has any, are those of model {how["from"]}. Fingerprint of the scans: `{how["content_sha256"][:12]}`.

## Use

Classifies one brain-MRI image into {", ".join(facts["labels"])}. Before you believe a row, measure it on scans of the site that
had no part in adapting it:

```
mribatch accept --model {{name}} --data LABELLED --output acceptance
```

## Training and limits

See the card of model {how["from"]}. Adapt again after a new scanner or a new protocol.

Created {facts["created_at"]} with {libraries}.
"""


def _results(labelled: Mapping[str, Any] | None) -> str:
    if labelled is None:
        return "No labelled scans were given: nothing is known of whether the model became better or worse."
    return f"""| {labelled["scans"]} labelled scans of the site | before | after |
|---|---|---|
| balanced accuracy | {percent(labelled["before"])} | {percent(labelled["after"])} |
| right | {labelled["before_right"]} | {labelled["after_right"]} |

Only the model before is right on {labelled["only_before"]} of them, only this one on {labelled["only_after"]} \
(p = {labelled["p_value"]:.2g}, exact McNemar test)."""
