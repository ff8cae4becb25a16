"""What the words of a series say about its kind. The words are read here and never emitted."""

import re

from mribatch.scans.dicom.elements import Elements
from mribatch.schema import Reason

__all__ = ["series_texts", "word_kind"]

_SERIES_DESCRIPTION, _PROTOCOL, _MANUFACTURER = 0x0008103E, 0x00181030, 0x00080070
_WHOLE_EXAM = ("GE ", "G.E.")  # vendors whose protocol name names the examination, not the series

_DIFFUSION = (
    r"\bd(?:[wt]|mr)i\w*|\bdt high\b|\bdw\b|\bdiff\b|\bdiff\d|diffusion|\bdki\b|\bdsi\b|\bhardi\b|\bnoddi\b|\bivim\b"
    r"|\btrace ?w?\b|\bresolve\b|\bb ?[1-9]\d{2,3}\b|\d+ ?dirs?\b|\bdirs?\d+\b"
)
_PATTERNS = (  # in the order in which they are tried
    (
        Reason.LOCALIZER,
        r"locali[sz]|\blocs?\d*\b|scout|\bsurvey\b|surview|scanogram|topogram|\bplan ?scan\b|\bpilot\b"
        r"|\b(?:3|three|tri) ?(?:plane|pl|pilot)\b|\btripilot\b|\baahead\b|\bsmart ?brain\b|\bcalibration\b"
        r"|\b(?:asset|array|coil|sense|arc) (?:cal|ref)\w*|\bref(?:erence)? ?scan\b",
    ),
    (
        Reason.MAP,
        r"\b[de]?adc\b|apparent diff|\bexponential\b|\baverage dc\b|colou?r ?fa\b|\bcolfa\b|fractional ?aniso"
        r"|\b(?:r|rel)?cb[fv]\b|\b(?:r|rel)?mtt\b|\bttp\b|\bt ?max\b|field ?map|\bf ?map\w*|\bfm\b|b[01] ?(?:map|field)"
        r"|\b(?:t1|t2|t2 ?star|t2\*|r1|r2|r2 ?star|r2\*|pd|ff|t|z) ?maps?\b|\bqsm\b|\bpdff\b|fat ?frac|stiffness|elastogra"
        r"|\bmre\b|\bshim\w*|sensitivity map",
    ),
    (
        Reason.PROJECTION,
        r"\bmips?\b|\bmi?nips?\b|\b(?:max|min|thin) ?ips?\b|\bvrt\b|\bssd\b|\bprojections?\b|\bpjn\b|\bcollapse\b"
        r"|\bvolume render",
    ),
    (Reason.PERFUSION, r"\b(?:2d|3d)?p?c?v?asl\b|\w*casl\b|arterial spin|\bperf(?:us\w*)?\b|\bpwi\b|\bdsc\b|\bdce\b"),
    (Reason.PHASE, r"\bpha\b|\bphasediff\b|\bphase ?(?:images?|imgs?|maps?|diff\w*)\b|\b(?:part|swi|filt\w*) phase\b"),
    (Reason.MAP, r"\bmaps?\b"),
    (Reason.DIFFUSION, _DIFFUSION),
    (
        Reason.FUNCTIONAL,
        r"\b(?:rs|rs |fc|fct|pa)?fmri\b|\bfcmri\b|\bbold\b|\bfunc(?:tional)?\b|\brest(?:ing)?(?: ?state)?\b|\btask\b"
        r"|\bep2d\w*|\b(?:ge|se|mb)? ?epi\d*\b|\bmbep\w*|\bsbref\b|\bcmrr\b",
    ),
)
_ORDER = [(reason, re.compile(pattern)) for reason, pattern in _PATTERNS]
_ANISOTROPY = re.compile(r"\bfa\b")  # also a flip angle, so it counts beside words of diffusion only
_IS_DIFFUSION = re.compile(_DIFFUSION)


def series_texts(elements: Elements) -> list[str]:
    """Return the description of the series and the name of its protocol; those that are missing are left out."""
    return [text for tag in (_SERIES_DESCRIPTION, _PROTOCOL) if (text := elements.text(tag))]


def word_kind(elements: Elements) -> Reason | None:
    """Return the kind that the words of the series name: the description's, else the protocol's."""
    description, protocol = elements.text(_SERIES_DESCRIPTION), elements.text(_PROTOCOL)
    kind = _kind_of(description)
    if kind is None and not (description and elements.text(_MANUFACTURER).upper().startswith(_WHOLE_EXAM)):
        kind = _kind_of(protocol)
    return kind


def _kind_of(text: str) -> Reason | None:
    words = re.sub(r"[^a-z0-9*]+", " ", text.lower()).strip()
    if _ANISOTROPY.search(words) and _IS_DIFFUSION.search(words):
        return Reason.MAP
    return next((reason for reason, pattern in _ORDER if pattern.search(words)), None)
