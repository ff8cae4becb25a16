"""What the coded fields of an MR object say about its kind."""

import re
from collections.abc import Iterator

from mribatch.scans.dicom.elements import Elements
from mribatch.scans.dicom.groups import FrameGroups
from mribatch.schema import Reason

__all__ = ["coded_kind", "hinted_kind", "is_mosaic", "is_tiled"]

_IMAGE_TYPE, _FRAME_TYPE, _FRAME_TYPE_GROUP = 0x00080008, 0x00089007, 0x00189226
_COMPONENT, _CONTRAST, _CALCULATION = 0x00089208, 0x00089209, 0x00089207
_B_VALUE, _DIRECTIONALITY, _DIFFUSION_GROUP, _LABELLING = 0x00189087, 0x00189075, 0x00189117, 0x00189250
_SCANNING, _SEQUENCE, _PULSE_SEQUENCE, _ECHO_PLANAR = 0x00180020, 0x00180024, 0x00189005, 0x00189018
_TEMPORAL_POSITIONS, _TEMPORAL_INDEX, _CONTENT_GROUP = 0x00200105, 0x00209128, 0x00209111
_CODED_VALUES = 2  # the first two of an image type (ORIGINAL, PRIMARY) say nothing about the kind
_PRIVATE_B_VALUES = (  # group, creator, element, representation
    (0x2001, "Philips Imaging DD 001", 0x03, "FL"),
    (0x0019, "SIEMENS MR HEADER", 0x0C, "IS"),
    (0x0065, "Image Private Header", 0x09, "FD"),  # United Imaging
)
_GE_PARAMETERS = (0x0043, "GEMS_PARM_01")
_GE_B_VALUE, _GE_COMPONENT = 0x39, 0x2F
_GE_B_OFFSET = 1_000_000_000  # newer software adds it
_GE_COMPONENTS = {1: Reason.PHASE, 3: Reason.PHASE}  # phase, imaginary
_SIEMENS_TILES = (0x0019, "SIEMENS MR HEADER", 0x0A, "US")
_UNITED_TILES = (0x0065, "Image Private Header", 0x50, "DS")
_PHILIPS_TECHNIQUE = (0x2001, "Philips Imaging DD 001", 0x20)
_PHILIPS_PLANAR_FACTOR = (0x2001, "Philips Imaging DD 001", 0x13)
_PHILIPS_CLASSIC = (0x2005, "Philips MR Imaging DD 005", 0x0F)
_SPIN_ECHO = ("SE", "RM")  # GE says RM, research mode, of its diffusion sequences
_FEW_ECHOES = 7  # anatomical sequences read a few echoes in a row, too
_MANY_POSITIONS = 4  # of time: fewer may be the phases of a contrast study, which are anatomy

_CODES = (  # of image and frame types, blanks for underscores, in the order in which they are tried
    (Reason.LOCALIZER, r"LOCALI[SZ]ER|SCOUT|SURVEY"),
    (Reason.SECONDARY_CAPTURE, r"SCREEN ?(?:SAVE|SHOT|CAPTURE)"),
    (Reason.SEGMENTATION, r"SEGMENTATION|LABEL ?MAP|MASK"),
    (
        Reason.PHASE,
        r"PHASE(?: ?MAP| ?DIFF\w*)?|IMAGINARY|(?:SW )?[PI](?: (?:SE|FFE|IR|TFE|TSE|PCA))?|VELOCITY(?: MAP)?",
    ),
    (
        Reason.MAP,
        r"E?ADC\b.*|EXP|EXPONENTIAL|FA|COL ?FA|TENSOR|AD|RD|MD|(?:R|REL)?CB[FV]|(?:R|REL)?MTT|TTP|T ?MAX|PBP|GBP"
        r"|(?:.* )?MAPS?\b.*|STIFFNESS|WAVE|FAT ?FRACTION|PDFF|QSM|R2 ?STAR|FIELD ?MAP.*",
    ),
    (
        Reason.PROJECTION,
        r"(?:CSA )?(?:MIP|MI?NIP|M(?:AX|IN) IP|VRT|SSD)|PROJECTION(?: IMAGE)?|(?:VOLUME|SURFACE) RENDER\w*|COLLAPSE",
    ),
    (Reason.PERFUSION, r"P?C?ASL|PERFUSION|PWI|DSC|DCE"),
    (Reason.MAP, r"T ?TEST|Z ?SCORE"),
    (Reason.DIFFUSION, r"DIFFUSION|TRACE ?W?|C?DWI?|CALC BVALUE"),
    (Reason.FUNCTIONAL, r"FMRI|BOLD"),
)
_ORDER = [(reason, re.compile(pattern)) for reason, pattern in _CODES]
_RANKS = {reason: rank for rank, (reason, _) in reversed(list(enumerate(_ORDER)))}
_COMPONENTS = {"PHASE": Reason.PHASE, "IMAGINARY": Reason.PHASE}
_CONTRASTS = {"PERFUSION": Reason.PERFUSION, "DIFFUSION": Reason.DIFFUSION}
_CALCULATIONS = dict.fromkeys(("MAX_IP", "MIN_IP", "VOLUME_RENDER", "SURFACE_RENDER"), Reason.PROJECTION)
_WEIGHTED = ("DIRECTIONAL", "BMATRIX", "ISOTROPIC")
_SEQUENCES = (  # the names that vendors give their sequences
    (Reason.DIFFUSION, re.compile(r"\*?(?:ep|re)_?b\d|\*?dwi", re.IGNORECASE)),
    (Reason.MAP, re.compile(r"\*?fm[23]d", re.IGNORECASE)),
)
_EPI_NAME = re.compile(r"\*?ep(?:fid|se|ir|2d|i)|\w*epi", re.IGNORECASE)


def is_mosaic(elements: Elements) -> bool:
    """Return whether a classic object says that it is a Siemens mosaic: many slices side by side in one picture."""
    return "MOSAIC" in (value.upper() for value in elements.texts(_IMAGE_TYPE)) or _tiles(elements, _SIEMENS_TILES) > 1


def is_tiled(elements: Elements) -> bool:
    """Return whether a classic object of any vendor holds many slices side by side in one picture."""
    return is_mosaic(elements) or _tiles(elements, _UNITED_TILES) > 1


def _tiles(elements: Elements, place: tuple[int, str, int, str]) -> float:
    group, creator, element, vr = place
    tag = elements.private(group, creator, element)
    return (elements.number(tag, vr) or 0) if tag else 0


def coded_kind(elements: Elements, groups: FrameGroups) -> Reason | None:
    """Return the kind that the coded fields name."""
    types = set(_types(elements, groups))
    named = {rank for rank, (_, pattern) in enumerate(_ORDER) if any(map(pattern.fullmatch, types))}
    others = {reason for reason, pattern in _SEQUENCES if any(map(pattern.match, _sequences(elements)))}
    others |= {*_frame_codes(elements, groups), *_ge_component(elements)}
    if any(value > 0 for value in _b_values(elements, groups)):
        others.add(Reason.DIFFUSION)
    if elements.text(_LABELLING):
        others.add(Reason.PERFUSION)
    named |= {_RANKS[reason] for reason in others}
    return _ORDER[min(named)][0] if named else None


def hinted_kind(elements: Elements, groups: FrameGroups) -> Reason | None:
    """Return the kind that an echo planar sequence or many positions in time hint at."""
    positions = _positions(elements, groups)
    is_planar = _is_planar(elements)
    if positions > _MANY_POSITIONS or (is_planar and positions > 1):
        return Reason.FUNCTIONAL
    if not is_planar:
        return None
    is_spin_echo = any(value.upper() in _SPIN_ECHO for value in elements.texts(_SCANNING))
    is_spin_echo |= any("epse" in name.lower() for name in _sequences(elements))
    return Reason.DIFFUSION if is_spin_echo else Reason.FUNCTIONAL


def _is_planar(elements: Elements) -> bool:
    factor = elements.private(*_PHILIPS_PLANAR_FACTOR)
    return (
        "EP" in (value.upper() for value in elements.texts(_SCANNING))
        or elements.text(_ECHO_PLANAR).upper() == "YES"
        or any(map(_EPI_NAME.match, _sequences(elements)))
        or (factor is not None and (elements.number(factor, "SL") or 0) > _FEW_ECHOES)
    )


def _positions(elements: Elements, groups: FrameGroups) -> float:
    """Return how many positions in time an object is of."""
    frames = [groups.frames[frame] for frame in groups.samples() if groups.frames]
    counts = [place.number(_TEMPORAL_POSITIONS, "IS") for place in (elements, *_philips_items(elements, *frames))]
    contents = (groups.item(frame, _CONTENT_GROUP) for frame in groups.samples())
    counts += [item.number(_TEMPORAL_INDEX, "UL") for item in contents if item is not None]
    return max(count or 0 for count in counts)


def _philips_items(*places: Elements) -> Iterator[Elements]:
    """Yield the items in which Philips repeats the attributes of a classic object."""
    for place in places:
        tag = place.private(*_PHILIPS_CLASSIC)
        if tag and (item := place.item(tag)) is not None:
            yield item


def _types(elements: Elements, groups: FrameGroups) -> list[str]:
    values = elements.texts(_IMAGE_TYPE)[_CODED_VALUES:]
    for frame in groups.samples():
        if (item := groups.item(frame, _FRAME_TYPE_GROUP)) is not None:
            values += item.texts(_FRAME_TYPE)[_CODED_VALUES:]
    return [value.upper().replace("_", " ").strip() for value in values]


def _frame_codes(elements: Elements, groups: FrameGroups) -> list[Reason]:
    """Return what complex component, contrast, calculation and diffusion directionality say."""
    items = [elements]
    for group in (_FRAME_TYPE_GROUP, _DIFFUSION_GROUP):
        items += [item for frame in groups.samples() if (item := groups.item(frame, group)) is not None]
    reasons: list[Reason | None] = []
    for item in items:
        reasons.append(_COMPONENTS.get(item.text(_COMPONENT).upper()))
        reasons.append(_CONTRASTS.get(item.text(_CONTRAST).upper()))
        reasons.append(_CALCULATIONS.get(item.text(_CALCULATION).upper()))
        reasons.append(Reason.DIFFUSION if item.text(_DIRECTIONALITY).upper() in _WEIGHTED else None)
    return [reason for reason in reasons if reason is not None]


def _b_values(elements: Elements, groups: FrameGroups) -> list[float]:
    values = elements.numbers(_B_VALUE, "FD")[:1]
    for frame in groups.samples():
        if (item := groups.item(frame, _DIFFUSION_GROUP)) is not None:
            values += item.numbers(_B_VALUE, "FD")[:1]
    for group, creator, element, vr in _PRIVATE_B_VALUES:
        if tag := elements.private(group, creator, element):
            values += elements.numbers(tag, vr)[:1]
    if tag := elements.private(*_GE_PARAMETERS, _GE_B_VALUE):
        values += [value % _GE_B_OFFSET for value in elements.numbers(tag, "IS")[:1]]
    return values


def _ge_component(elements: Elements) -> set[Reason]:
    tag = elements.private(*_GE_PARAMETERS, _GE_COMPONENT)
    component = elements.number(tag, "SS") if tag else None
    return {_GE_COMPONENTS[int(component)]} if component in _GE_COMPONENTS else set()


def _sequences(elements: Elements) -> list[str]:
    tags = (_SEQUENCE, _PULSE_SEQUENCE, elements.private(*_PHILIPS_TECHNIQUE))
    return [text for tag in tags if tag and (text := elements.text(tag))]
