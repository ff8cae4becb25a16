"""The model card: what a model is for, how it came about, how it did and how far to trust that, as Markdown. Text only."""

from collections.abc import Mapping
from typing import Any

from mribatch.models import recipe
from mribatch.statistics.metrics import percent

__all__ = ["RELATIONS", "classical_card", "evidence_of", "model_card"]

RELATIONS: Mapping[str, tuple[str, str]] = {
    "published": ("same source, as published, near copies of training scans in it", "TESTING"),
    "groups_apart": ("same source, near copies of training scans left out", "APART.csv"),
    "other_source": ("another source", "OTHER.csv"),
}
"""What a model may have been evaluated on, by the key in model.json: a description, and what stands for the data."""

_WHY_KEPT = {"best": "which had the lowest validation loss", "last": "the last one"}
_WHAT_CHOSE = {
    "best": "These figures chose the epoch, so they flatter it a little.",
    "last": "Nothing was chosen by these figures.",
}
_NOT_A_DEVICE = "**Research and triage tool, not a medical device.** Do not diagnose or treat by its output alone."


def evidence_of(numbers: Mapping[str, Any], about: str) -> dict[str, Any]:
    """Return what model.json keeps of an evaluation's metrics. about: a sentence on the scans and how they were chosen."""
    per_class = {
        label: {"scans": row["support"], "right": round(row["recall"] * row["support"])}
        for label, row in numbers["per_class"].items()
    }
    return {"about": about, "scans": numbers["scans"], "right": sum(row["right"] for row in per_class.values()),
            "accuracy_95": numbers["accuracy_95"], "balanced_accuracy": numbers["balanced_accuracy"],
            "mean_confidence": numbers["mean_confidence"], "per_class": per_class}  # fmt: skip


def model_card(facts: dict[str, Any]) -> str:
    """MODEL_CARD.md for the facts of a model.json; `{digest}` is left to be filled in."""
    training, metrics, data = facts["training"], facts["metrics"], facts["training"]["data"]
    split = data["split"]
    classes = "\n".join(f"| {label} | {data['by_label'][label]} |" for label in facts["labels"])
    measured = "\n".join(f"| {name.removeprefix('val_')} | {value:.4f} |" for name, value in metrics.items())
    return f"""# Model {{digest}}

{_NOT_A_DEVICE}

{_trust(facts)}

Classifies one brain-MRI image into {", ".join(facts["labels"])}. It knows nothing else: an image of anything, a healthy
knee too, gets one of these classes. Network: {facts["backbone"]} under global max pooling, a dense layer of 128 and
softmax; input {facts["image_side_px"]} × {facts["image_side_px"]} px RGB.

## How it was trained

{_commands(training)}

The last training took {training["epochs"]} epochs in {training["hours"]:.1f} hours; the weights are those of epoch \
{training["epoch"]}, {_WHY_KEPT[training["kept"]]}.
Libraries: {", ".join(f"{name} {number}" for name, number in facts["libraries"].items())}. {facts["created_at"]}.

## Data

{data["scans"]} scans, {data["different_images"]} different images; {data["rejected"]} unreadable ones left out. \
Split {split["protocol"]}: {split["train"]} to train, {split["validation"]} to validate,
{split["test"]} to test, {split["set_aside"]} copies set aside. Fingerprint `{data["content_sha256"][:12]}`.

| class | scans |
|---|---|
{classes}

## Validation

Same source as the training scans; near copies of them are not set aside, so these figures say nothing about other scanners.

| metric | value |
|---|---|
{measured}

{_WHAT_CHOSE[training["kept"]]} Measure on scans of your own with `jobs/evaluate.py`.

## Limits

Other scanners, sequences, ages or diseases than those of its training scans were not seen. Confidence is the softmax
output, not a probability of disease, and stays high where the model is wrong.
"""


def classical_card(title: str, facts: dict[str, Any]) -> str:
    """MODEL_CARD.md of a classical model, from the facts of its model.json; `{digest}` is left to be filled in."""
    training, data = facts["training"], facts["training"]["data"]
    sees = "features of a frozen Xception" if facts["head"]["features"] == "backbone" else "grey pixels"
    chosen = ", ".join(f"{name.partition('__')[2]} {value}" for name, value in training["chosen"].items())
    return f"""# Model {{digest}}

{_NOT_A_DEVICE}

{_trust(facts)}

{title}: classifies one brain-MRI image into {", ".join(facts["labels"])} by {sees}, {facts["image_side_px"]} × \
{facts["image_side_px"]} px. It was fitted for a comparison of models, on its first split only.

{_commands(training)}

Nearest-neighbour and SVM models store training scans, or data that they can be reconstructed from: treat the model as
patient data.

Chosen by cross-validation: {chosen or "nothing"}. {data["scans"]} scans, {data["different_images"]} different images, split \
{data["split"]}: {data["train"]} to learn from, {data["test"]} to test.
Libraries: {", ".join(f"{name} {number}" for name, number in facts["libraries"].items())}. {facts["created_at"]}.
"""


def _trust(facts: Mapping[str, Any]) -> str:
    """How far to trust the model: a row for each kind of evidence, `no evidence` where there is none."""
    evidence = facts.get("evidence", {})
    rows = [_evidence_row(what, evidence.get(key)) for key, (what, _) in RELATIONS.items()]
    measured = [(place, evidence[key]) for key, (_, place) in RELATIONS.items() if key in evidence]
    commands = [f"python jobs/evaluate.py --model MODEL --data {place} --output EVALUATION" for place, _ in measured]
    scans = [f"- `{place}`: {found['about']} {_right_by_class(found)}" for place, found in measured]
    lines = [
        f"**{_verdict(evidence.get('other_source'))}**",
        "",
        "| measured on | scans | right | accuracy (95% interval) | balanced accuracy | mean confidence |",
        "|---|---|---|---|---|---|",
        *rows,
    ]
    return "\n".join([*lines, *(["", "```", *commands, "```", "", *scans] if measured else [])])


def _verdict(other: Mapping[str, Any] | None) -> str:
    if other is None:
        return ("There is no evidence from another source than that of the training scans: expect worse on other scanners, "
                "and evaluate on your own scans before use.")  # fmt: skip
    return (f"On scans of another source it is right on {percent(other['right'] / other['scans'])} at a mean confidence of "
            f"{percent(other['mean_confidence'])}: do not expect the accuracy of its own source anywhere else.")  # fmt: skip


def _evidence_row(what: str, found: Mapping[str, Any] | None) -> str:
    if found is None:
        return f"| {what} | no evidence | | | | |"
    low, high = found["accuracy_95"]
    shares = (percent(found["right"] / found["scans"]), percent(low), percent(high))
    return (f"| {what} | {found['scans']} | {found['right']} | {shares[0]} ({shares[1]} to {shares[2]}) | "
            f"{percent(found['balanced_accuracy'])} | {percent(found['mean_confidence'])} |")  # fmt: skip


def _right_by_class(found: Mapping[str, Any]) -> str:
    """Right answers of each class; one without scans is said to have none."""
    counts = [(label, row["right"], row["scans"]) for label, row in found["per_class"].items()]
    told = ", ".join(f"{label} {right} of {scans}" if scans else f"{label} no scan" for label, right, scans in counts)
    return f"Right by class: {told}."


def _commands(training: Mapping[str, Any]) -> str:
    """The commands that train the model, the first one first, and what their placeholders stand for."""
    stages = [training["command"], *(one["command"] for one in training.get("started_from", []))][::-1]
    commands, unknown = recipe.chain(stages), []
    if not stages[0]:
        digest = training["started_from"][-1]["digest"]
        unknown = [f"It starts from model {digest}, START below, whose training is not recorded.", ""]
    known = [one for one in training.get("started_from", []) if one["command"]][::-1]
    lines = [f"- `{name}`: {meaning}" for name, meaning in recipe.meanings(commands).items()]
    lines += [f"- `models/stage-{number + 1}`: was model {one['digest']}" for number, one in enumerate(known)]
    return "\n".join([*unknown, "```", *commands, "```", "", *lines])
