"""The model card: what a model is for, how it came about and how it did, as Markdown. Text only."""

from typing import Any

__all__ = ["classical_card", "model_card"]

_WHY_KEPT = {"best": "which had the lowest validation loss", "last": "the last one"}
_WHAT_CHOSE = {
    "best": "These figures chose the epoch, so they flatter it a little.",
    "last": "Nothing was chosen by these figures.",
}


def model_card(facts: dict[str, Any]) -> str:
    """MODEL_CARD.md for the facts of a model.json; `{digest}` is left to be filled in."""
    training, metrics, data = facts["training"], facts["metrics"], facts["training"]["data"]
    split = data["split"]
    classes = "\n".join(f"| {label} | {data['by_label'][label]} |" for label in facts["labels"])
    measured = "\n".join(f"| {name.removeprefix('val_')} | {value:.4f} |" for name, value in metrics.items())
    return f"""# Model {{digest}}

**Research and triage tool, not a medical device.** Do not diagnose or treat by its output alone.

Classifies one brain-MRI image into {", ".join(facts["labels"])}. It knows nothing else: an image of anything, a healthy
knee too, gets one of these classes. Network: {facts["backbone"]} under global max pooling, a dense layer of 128 and
softmax; input {facts["image_side_px"]} × {facts["image_side_px"]} px RGB.

## How it was trained

```
{training["command"]}
```

{training["epochs"]} epochs in {training["hours"]:.1f} hours; the weights are those of epoch {training["epoch"]}, \
{_WHY_KEPT[training["kept"]]}.
{_lineage(training)}Libraries: {", ".join(f"{name} {number}" for name, number in facts["libraries"].items())}. {facts["created_at"]}.

## Data

{data["scans"]} scans, {data["different_images"]} different images; {data["rejected"]} unreadable ones left out. \
Split {split["protocol"]}: {split["train"]} to train, {split["validation"]} to validate,
{split["test"]} to test, {split["set_aside"]} copies set aside. Fingerprint `{data["content_sha256"][:12]}`.

| class | scans |
|---|---|
{classes}

## Validation

| metric | value |
|---|---|
{measured}

{_WHAT_CHOSE[training["kept"]]} Measure on scans of your own with `jobs/evaluate.py`.

## Limits

The scans are single slices of one public collection. Other scanners, sequences, ages or diseases were not seen. Confidence is
the softmax output, not a probability of disease.
"""


def _lineage(training: dict[str, Any]) -> str:
    """What it goes on from, for it to be done again from the beginning."""
    return "".join(
        f"It goes on from model {one['digest']}, trained by:\n\n```\n{one['command']}\n```\n\n"
        for one in training.get("started_from", [])
    )


def classical_card(title: str, facts: dict[str, Any]) -> str:
    """MODEL_CARD.md of a classical model, from the facts of its model.json; `{digest}` is left to be filled in."""
    training, data = facts["training"], facts["training"]["data"]
    sees = "features of a frozen Xception" if facts["head"]["features"] == "backbone" else "grey pixels"
    chosen = ", ".join(f"{name.partition('__')[2]} {value}" for name, value in training["chosen"].items())
    return f"""# Model {{digest}}

**Research and triage tool, not a medical device.** Do not diagnose or treat by its output alone.

{title}: classifies one brain-MRI image into {", ".join(facts["labels"])} by {sees}, {facts["image_side_px"]} × \
{facts["image_side_px"]} px. It was fitted for a comparison of models, on its first split only.

```
{training["command"]}
```

It may hold what its training scans can be rebuilt from, as nearest neighbours and support vectors do: treat it as patient data.

Chosen by cross-validation: {chosen or "nothing"}. {data["scans"]} scans, {data["different_images"]} different images, split \
{data["split"]}: {data["train"]} to learn from, {data["test"]} to test.
Libraries: {", ".join(f"{name} {number}" for name, number in facts["libraries"].items())}. {facts["created_at"]}.
"""
