"""What a row may say of whom and of which series: keyed hashes, or what the user asks for."""

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mribatch.errors import ConfigError

if TYPE_CHECKING:
    from mribatch.scans.dicom.elements import Elements  # loads pydicom

__all__ = ["Identifiers", "Keys"]

_INSTANCE, _STUDY, _SERIES, _PATIENT = 0x00080018, 0x0020000D, 0x0020000E, 0x00100020
_KEY_BYTES = 16  # 128 bits of the digest
_LEAST_SECRET_BYTES = 16


@dataclass(frozen=True)
class Keys:
    """The identifiers of an object as a row holds them; None for those that the header lacks."""

    instance_key: str | None = None
    series_key: str | None = None
    study_key: str | None = None
    patient_key: str | None = None


@dataclass(frozen=True, kw_only=True)
class Identifiers:
    """How UIDs and patient IDs become keys: `keyed` by HMAC-SHA-256 with a secret, `plain` as they are, `none`."""

    mode: Literal["keyed", "plain", "none"] = "none"
    secret: bytes = b""

    def __post_init__(self) -> None:
        if self.mode == "keyed" and len(self.secret) < _LEAST_SECRET_BYTES:
            raise ConfigError(f"keyed identifiers need a secret of {_LEAST_SECRET_BYTES} bytes or more")

    def __repr__(self) -> str:
        return f"Identifiers(mode={self.mode!r})"

    def keys(self, elements: "Elements") -> Keys:
        """Return the keys of an object."""
        return Keys(*(self._key(elements, tag) for tag in (_INSTANCE, _SERIES, _STUDY, _PATIENT)))

    def _key(self, elements: "Elements", tag: int) -> str | None:
        return self.key_of(elements.text(tag).encode("latin-1"))

    def key_of(self, value: bytes) -> str | None:
        """Return the key of a UID or patient ID, given as the bytes that a header has; None for an empty one."""
        if not value or self.mode == "none":
            return None
        if self.mode == "plain":
            return value.decode("latin-1")
        return hmac.new(self.secret, value, hashlib.sha256).digest()[:_KEY_BYTES].hex()
