"""Decoding in a separate process: a scan that kills or hangs it costs only that scan."""

import io
import os
import signal
from pathlib import Path

import pytest
from PIL import Image

from mribatch.errors import DecoderLost
from mribatch.scans.limits import ImageSpec
from mribatch.scans.sandbox import Decoder
from mribatch.schema import Reason, Status
from tests.frames import decode, only
from tests.sabotage.sabotage_words import HANGS, KILLS, RAISES

SPEC = ImageSpec(side_px=32)


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> Decoder:
    """Return a decoder whose process some scans kill or hang."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "sabotage"))
    return Decoder(SPEC, timeout_s=1.0)


def scan() -> bytes:
    data = io.BytesIO()
    Image.linear_gradient("L").save(data, "PNG")
    return data.getvalue()


def process_of(decoder: Decoder) -> int:
    assert decoder._process is not None
    return decoder._process.pid


def test_a_scan_is_decoded_as_in_the_process_itself(decoder: Decoder) -> None:
    sandboxed, direct = only(decoder.decode(scan())), decode(scan(), SPEC)
    assert sandboxed == direct
    assert sandboxed.pixels is not None
    assert direct.pixels is not None
    assert (sandboxed.pixels == direct.pixels).all()


def test_bad_bytes_get_their_own_reason_from_there(decoder: Decoder) -> None:
    assert only(decoder.decode(b"")).reason is Reason.EMPTY
    assert only(decoder.decode(scan()[:100])).reason is Reason.TRUNCATED


def test_a_scan_that_kills_its_decoder_is_rejected_and_the_next_one_is_decoded(decoder: Decoder) -> None:
    killed = only(decoder.decode(KILLS))
    assert (killed.status, killed.reason) == (Status.REJECTED, Reason.CRASHED_DECODER)
    assert "SIGSEGV" in str(killed.detail)
    assert only(decoder.decode(scan())).status is Status.OK


def test_a_scan_that_hangs_its_decoder_is_rejected_and_the_next_one_is_decoded(decoder: Decoder) -> None:
    hung = only(decoder.decode(HANGS))
    assert (hung.status, hung.reason) == (Status.REJECTED, Reason.TIMED_OUT)
    assert only(decoder.decode(scan())).status is Status.OK


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_decoder_that_someone_kills_costs_no_scan(decoder: Decoder, number: int) -> None:
    assert only(decoder.decode(scan())).status is Status.OK
    os.kill(process_of(decoder), number)
    assert only(decoder.decode(scan())).status is Status.OK


def test_a_decoder_that_someone_stops_costs_no_scan(decoder: Decoder) -> None:
    assert only(decoder.decode(scan())).status is Status.OK
    os.kill(process_of(decoder), signal.SIGSTOP)
    assert only(decoder.decode(scan())).status is Status.OK


def test_its_peak_memory_is_known(decoder: Decoder) -> None:
    assert decoder.peak_bytes() == 0
    only(decoder.decode(scan()))
    assert decoder.peak_bytes() > 10 << 20


def test_a_large_scan_does_not_wait_for_ever_for_a_decoder_that_is_stopped(decoder: Decoder) -> None:
    assert only(decoder.decode(scan())).status is Status.OK
    os.kill(process_of(decoder), signal.SIGSTOP)
    assert only(decoder.decode(scan() + bytes(4_000_000))).status is Status.OK


def test_a_decoder_that_cannot_start_is_not_the_scans_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mribatch.scans.sandbox._MAIN", "raise SystemExit(1)")
    with pytest.raises(DecoderLost, match="exit code 1"):
        only(Decoder(SPEC).decode(scan()))


def test_a_scan_that_makes_decoding_raise_has_failed_with_the_cause_and_the_process_lives_on(decoder: Decoder) -> None:
    assert only(decoder.decode(scan())).status is Status.OK
    before = process_of(decoder)
    raised = only(decoder.decode(RAISES))
    assert (raised.status, raised.reason) == (Status.FAILED, Reason.UNFORESEEN)
    assert str(raised.detail).startswith("ZeroDivisionError in ")
    assert "JOHN" not in str(raised.detail)
    assert only(decoder.decode(scan())).status is Status.OK
    assert process_of(decoder) == before
