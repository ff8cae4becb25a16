"""Settings of `explain`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from mribatch.settings.base import Settings, check, check_range
from mribatch.settings.flags import Flag

__all__ = ["DESCRIPTIONS", "METHODS", "MOST_PICTURES", "ExplainConfig", "Method"]

Method = Literal["hires-cam", "grad-cam"]
METHODS: tuple[Method, ...] = get_args(Method)

DESCRIPTIONS: Mapping[Method, str] = {
    "grad-cam": "Grad-CAM on the last activations (Selvaraju et al. 2017)",
    "hires-cam": "HiResCAM on activations in the middle (Draelos & Carin 2020)",
}

MOST_PICTURES = 500
"""On one page: about 100 MB."""


@dataclass(frozen=True, kw_only=True)
class ExplainConfig(Settings):
    """Show where in a scan the score of its predicted class comes from, as overlays on one page."""

    model: Annotated[str, Flag("Model", "NAME|URI")]
    """Model directory, or a folder of model directories whose file CURRENT names one: a local path or s3://…
    A NAME is also looked up in models/ of the current folder and in the folders that MRIBATCH_MODELS lists."""

    input: Annotated[tuple[str, ...], Flag("Input", "URI")]
    """Folders, files, globs or s3://bucket/prefix. Every file below a folder is a scan, except hidden ones (names that
    begin with a dot)."""

    exclude: Annotated[tuple[str, ...], Flag("Input", "GLOB", "nothing", repeat=True)] = ()
    """Skip files that match this glob, for example 'cache/**'. It is relative to each --input and may use *, ?, [a-z]
    and **. May be given several times."""

    scan: Annotated[tuple[str, ...], Flag("Input", "URI", "--limit scans")] = ()
    """Explain these scans of --input: their URIs, or the last names of them, such as glioma/0010.jpg."""

    limit: Annotated[int, Flag("Input", "SCANS")] = 24
    """Without --scan, explain this many scans at most, spread over the whole listing."""

    frames: Annotated[tuple[int, ...], Flag("DICOM", "N", "the middle one")] = ()
    """Frames to explain of a file that has several, counted from 0."""

    window: Annotated[Literal["header", "computed"], Flag("DICOM")] = "header"
    """Grey levels of DICOM frames, as for `mribatch score`."""

    output: Annotated[str, Flag("Output", "URI")]
    """Folder for explanations.html, explanations.parquet and the overlays: a local path or s3://…"""

    method: Annotated[Method, Flag("Model")] = "hires-cam"
    """How the map is computed: Grad-CAM works on the last activations, HiResCAM on finer ones in the middle of the network."""

    show_unproven: Annotated[bool, Flag("Model")] = False
    """Show maps of classes too whose maps point at lesions no better than the centre of the image, or where that was
    not measured. Each is marked."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(len(self.input) > 0, "--input needs at least one folder, file, glob or s3://… prefix")
        check_range(self, "limit", least=1)
        check(
            all(frame >= 0 for frame in self.frames), f"--frames must be 0 or more, got {min(self.frames, default=0)}"
        )
        pictures = (len(self.scan) or self.limit) * max(1, len(set(self.frames)))
        check(
            pictures <= MOST_PICTURES,
            f"expected at most {MOST_PICTURES} pictures for one page, got {pictures}: lower --limit or name fewer "
            "--scan and --frames",
        )
