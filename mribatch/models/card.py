"""Write the model card in Markdown: test results, use, training, data and limits of a model."""

from collections.abc import Mapping, Sequence
from typing import Any

from mribatch.models import recipe
from mribatch.models.card_measures import honesty_section, referral_section
from mribatch.statistics.metrics import wilson_interval
from mribatch.statistics.pointing import Pointing, Verdict
from mribatch.statistics.shares import percent

__all__ = ["RELATIONS", "classical_card", "evidence_of", "evidence_section", "healthy_table", "model_card"]

RELATIONS: Mapping[str, tuple[str, str]] = {
    "published": ("same source, as published (includes near copies of training scans)", "TESTING"),
    "groups_apart": ("same source, without near copies of training scans", "APART.csv"),
    "other_source": ("another source", "OTHER.csv"),
}
"""Kinds of test sets by their key in model.json: a description, and the placeholder for the data in a command."""

_KEPT = {"best": "the one with the lowest validation loss", "last": "the last one"}
_BIAS = {
    "best": "The epoch was chosen by these figures, so they are slightly optimistic.",
    "last": "These figures were not used to choose anything.",
}
_NOTICE = "**Research and triage tool, not a medical device.** Do not base a diagnosis on its output alone."


def evidence_of(numbers: Mapping[str, Any], about: str) -> dict[str, Any]:
    """Return the part of an evaluation's metrics that model.json keeps.

    about: one or more sentences on the scans and how they were selected.
    """
    per_class = {
        label: {"scans": row["support"], "right": round(row["recall"] * row["support"])}
        for label, row in numbers["per_class"].items()
    }
    return {
        "about": about,
        "scans": numbers["scans"],
        "right": sum(row["right"] for row in per_class.values()),
        "accuracy_95": numbers["accuracy_95"],
        "balanced_accuracy": numbers["balanced_accuracy"],
        "mean_confidence": numbers["mean_confidence"],
        "per_class": per_class,
    }


def model_card(facts: dict[str, Any]) -> str:
    """Return MODEL_CARD.md of a network, from the facts of its model.json.

    `{digest}` and `{name}` (of the model directory) stay in the text, for `directory` to fill in.
    """
    training, data = facts["training"], facts["training"]["data"]
    split = data["split"]
    classes = "\n".join(f"| {label} | {data['by_label'][label]} |" for label in facts["labels"])
    measured = "\n".join(f"| {key.removeprefix('val_')} | {value:.4f} |" for key, value in facts["metrics"].items())
    return f"""# Model {{digest}}

{_NOTICE}

{evidence_section(facts)}
{_healthy(facts)}{honesty_section(facts)}{referral_section(facts)}
## Use

Classifies one brain-MRI image into {", ".join(facts["labels"])}. It always answers with one of these classes, even for
an image that is not of a brain. Network: {facts["backbone"]}, global max pooling, a dense layer of 128 units and
softmax. Input: {facts["image_side_px"]} × {facts["image_side_px"]} px RGB.

{_USE}

## Training

{_training_commands(training)}

The last training ran for {training["epochs"]} epochs ({training["hours"]:.1f} hours). The weights of epoch \
{training["epoch"]}, {_KEPT[training["kept"]]}, were kept.
{_created(facts)}

## Data

{data["scans"]} scans, {data["different_images"]} different images. {data["rejected"]} unreadable scans were left out. \
Split {split["protocol"]}: {split["train"]} scans for training, {split["validation"]} for validation,
{split["test"]} for testing, {split["set_aside"]} copies set aside.{_test_leaks(split)} Fingerprint `{data["content_sha256"][:12]}`.

| class | scans |
|---|---|
{classes}

## Validation

{_validation_note(split)}

| metric | value |
|---|---|
{measured}

{_BIAS[training["kept"]]}{_calibration(facts)}

{_explanation(facts)}

## Limits

The model has seen only the scanners, sequences, ages and diseases in its training scans. {_confidence(facts)}
"""


def _confidence(facts: Mapping[str, Any]) -> str:
    if "temperature" in facts:
        return "Confidence is calibrated on\nscans of their source. It is no probability of disease, and is too high on scans of other sources."
    return "Confidence is the softmax\noutput, not a probability of disease, and stays high when the model is wrong."


def _test_leaks(split: Mapping[str, Any]) -> str:
    leaking = split.get("leaks", {}).get("test", 0)
    return (
        f" {leaking} of the testing scans are near copies of the others, or show the same patients." if leaking else ""
    )


def _validation_note(split: Mapping[str, Any]) -> str:
    """Say how far the validation scans are apart from the training scans. Models of older versions did not look."""
    source = "The validation scans come from the same source as the training scans"
    if "leaks" not in split:
        return f"{source} and include near copies of them, so these figures\nsay nothing about other scanners."
    leaking = split["leaks"].get("validation", 0)
    if not leaking:
        return (
            f"{source}, but none of them is a near copy of one\nor shows the same known patient. These figures say nothing "
            "about other scanners."
        )
    return (
        f"**These figures leak.** {source},\nand {leaking} of the {split['validation']} are near copies of them or show the "
        "same patients. So the figures mostly measure how well slices are\nrecognized, and say nothing about other scanners."
    )


def _calibration(facts: Mapping[str, Any]) -> str:
    """Return the section on calibration and referral, with the blank line before it; nothing for a model without."""
    if "calibration" not in facts:
        return ""
    numbers = facts["calibration"]
    before, after, floor = numbers["before"], numbers["after"], numbers["noise_floor"]
    rows = {"loss": "loss", "adaptive_calibration_error": "adaptive calibration error", "brier": "Brier score"}
    table = "\n".join(f"| {name} | {before[key]:.4f} | {after[key]:.4f} |" for key, name in rows.items())
    return f"""

## Calibration and referral

Temperature {facts["temperature"]}. Measured on {numbers["scans"]} validation scans, each half with the temperature of the
other half. By chance alone, so many scans show a calibration error of {floor["mean"]:.4f} (95% below {floor["high"]:.4f}).

| measure | before | after |
|---|---|---|
{table}

The thresholds refer {percent(numbers["referred"])} of these scans to a person; at most
{percent(numbers["false_referrals"])} were allowed."""


def classical_card(title: str, facts: dict[str, Any]) -> str:
    """Return MODEL_CARD.md of a classical model, from the facts of its model.json; placeholders as in `model_card`."""
    training, data = facts["training"], facts["training"]["data"]
    inputs = "features of a frozen Xception" if facts["head"]["features"] == "backbone" else "grey pixels"
    chosen = ", ".join(f"{name.partition('__')[2]} {value}" for name, value in training["chosen"].items())
    return f"""# Model {{digest}}

{_NOTICE}

{evidence_section(facts)}

## Use

{title}: classifies one brain-MRI image into {", ".join(facts["labels"])} by {inputs}, {facts["image_side_px"]} × \
{facts["image_side_px"]} px. It was fitted for a comparison of models, on the first split only.

Nearest-neighbour and SVM models store training scans, or data that they can be reconstructed from: treat the model as
patient data.

{_USE}

## Training

{_training_commands(training)}

Parameters chosen by cross-validation: {chosen or "none"}. {data["scans"]} scans, {data["different_images"]} different \
images, split {data["split"]}: {data["train"]} for training, {data["test"]} for testing.
{_created(facts)}
"""


_USE = """In the root of the repository, or in any other folder that has this model in `models/`:

```
mribatch score --model {name} --input samples --output predictions
mribatch evaluate --model {name} --data LABELLED --output evaluation
```

The first command classifies the sample scans of the repository. The second one measures the model on scans of your own:
`LABELLED` has one folder per class, named like the classes above."""


def evidence_section(facts: Mapping[str, Any]) -> str:
    """Return the section that shows each kind of test, with `no evidence` for those that were not made."""
    evidence = facts.get("evidence", {})
    tests = [(place, evidence[key]) for key, (_, place) in RELATIONS.items() if key in evidence]
    lines = [
        "## Test results",
        "",
        f"**{_verdict(evidence.get('other_source'))}**",
        "",
        "| test set | scans | correct | accuracy (95% interval) | balanced accuracy | mean confidence |",
        "|---|---|---|---|---|---|",
        *(_result_row(description, evidence.get(key)) for key, (description, _) in RELATIONS.items()),
    ]
    return "\n".join([*lines, *_how_tested(tests)] if tests else lines)


def _verdict(other: Mapping[str, Any] | None) -> str:
    if other is None:
        return (
            "There is no evidence from another source than that of the training scans: expect worse results on other "
            "scanners, and evaluate the model on your own scans before use."
        )
    return (
        f"On scans from another source, accuracy is {percent(other['right'] / other['scans'])} at a mean confidence of "
        f"{percent(other['mean_confidence'])}: do not expect the accuracy on its own source anywhere else."
    )


def _result_row(description: str, result: Mapping[str, Any] | None) -> str:
    if result is None:
        return f"| {description} | no evidence | | | | |"
    accuracy, low, high = map(percent, (result["right"] / result["scans"], *result["accuracy_95"]))
    cells = (
        description,
        result["scans"],
        result["right"],
        f"{accuracy} ({low} to {high})",
        percent(result["balanced_accuracy"]),
        percent(result["mean_confidence"]),
    )
    return f"| {' | '.join(map(str, cells))} |"


def _how_tested(tests: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Return the commands of the tests, what their data are, and the correct answers of each class."""
    lines = ["", "```"]
    lines += [f"mribatch evaluate --model {{name}} --data {place} --output evaluation" for place, _ in tests]
    lines += ["```", ""]
    for place, result in tests:
        classes = ", ".join(
            f"{label} {row['right']} of {row['scans']}" if row["scans"] else f"{label} no scans"
            for label, row in result["per_class"].items()
        )
        lines.append(f"- `{place}`: {result['about']} Correct by class: {classes}.")
    return lines


def _explanation(facts: Mapping[str, Any]) -> str:
    """Return the section on maps: how often they point at lesions, or that it was not measured."""
    lines = ["## Explanation", ""]
    pointing = facts.get("pointing")
    if pointing is None or pointing["digest"] != facts["digest"]:
        return "\n".join([*lines, "Whether the maps of `mribatch explain` point at lesions was not measured."])
    lines += [
        "How often the peak of a map lies in the box around the lesion, and how often the centre of the image does. `mribatch",
        "explain` shows the maps of a class if the interval lies above the centre's rate.",
        "",
        "| map | class | lesions | peak in the lesion (95% interval) | centre in the lesion | shown |",
        "|---|---|---|---|---|---|",
    ]
    for method, measured in pointing["methods"].items():
        lines += [_pointing_row(method, label, measured.get(label)) for label in facts["labels"]]
    return "\n".join([*lines, "", "```", pointing["command"], "```"])


def _pointing_row(method: str, label: str, counts: Mapping[str, int] | None) -> str:
    if counts is None:
        return f"| {method} | {label} | not measured | | | no |"
    pointing = Pointing(**counts)
    rate, low, high, centre = map(
        percent, (pointing.right / pointing.boxes, *pointing.interval, pointing.centre / pointing.boxes)
    )
    shown = "yes" if pointing.verdict == Verdict.BEATS_CENTRE else "no"
    return f"| {method} | {label} | {pointing.boxes} | {rate} ({low} to {high}) | {centre} | {shown} |"


def healthy_table(numbers: Mapping[str, Any]) -> list[str]:
    """Return the lines of a table: slices of healthy people that are given a tumour class, by kind of picture.

    numbers: `by_kind`, the counts `slices`, `default` (slices scored by default) and `tumours` of each kind; and `default`,
    the counts `slices` and `tumours` of all that is scored by default.
    """
    kinds, default = numbers["by_kind"], numbers["default"]
    total = {name: sum(counts[name] for counts in kinds.values()) for name in ("slices", "default", "tumours")}
    rows = [(kind.replace("_", " "), counts) for kind, counts in kinds.items()]
    rows += [("**with `--select all`**", total), ("**by default**", default | {"default": default["slices"]})]
    return [
        "| kind of picture | slices | scored by default | given a tumour class | share (95% interval) |",
        "|---|---|---|---|---|",
        *(f"| {name} | {c['slices']} | {c['default']} | {c['tumours']} | {_share(c)} |" for name, c in rows),
    ]


def _share(counts: Mapping[str, int]) -> str:
    tumours, slices = counts["tumours"], counts["slices"]
    low, high = wilson_interval(tumours, slices)
    return f"{percent(tumours / slices if slices else None)} ({percent(low)} to {percent(high)})"


def _healthy(facts: Mapping[str, Any]) -> str:
    """Return the section on slices of healthy people; nothing where they were not scored."""
    numbers = facts.get("healthy")
    if numbers is None:
        return ""
    return "\n".join(
        [
            "",
            "## Healthy people",
            "",
            "How many slices of people without a tumour are given a tumour class:",
            "",
            *healthy_table(numbers),
            "",
            "```",
            "python benchmarks/healthy.py --data FOLDER --about TEXT",
            "```",
            "",
            f"`FOLDER`: {numbers['about']} Slices of one person are alike, so the intervals are too narrow.",
            "",
        ]
    )


def _training_commands(training: Mapping[str, Any]) -> str:
    """Return the commands that train the model, the first one first, and the meaning of their placeholders."""
    earlier = training.get("started_from", [])
    stages = [training["command"], *(stage["command"] for stage in earlier)][::-1]
    commands, unrecorded = recipe.chain(stages), []
    if not stages[0]:
        unrecorded = [f"Started from model {earlier[-1]['digest']} (START below), whose training is not recorded.", ""]
    recorded = [stage["digest"] for stage in earlier if stage["command"]][::-1]
    lines = [f"- `{name}`: {meaning}" for name, meaning in recipe.meanings(commands).items()]
    lines += [f"- `models/stage-{number}`: model {digest}" for number, digest in enumerate(recorded, 1)]
    return "\n".join([*unrecorded, "```", *commands, "```", "", *lines])


def _created(facts: Mapping[str, Any]) -> str:
    libraries = ", ".join(f"{name} {number}" for name, number in facts["libraries"].items())
    return f"Created {facts['created_at']} with {libraries}."
