"""What a scan's bytes begin with that is to kill, hang or break its decoder. Nothing else, so that tests can import it."""

KILLS, HANGS, RAISES = b"KILLS ITS DECODER", b"HANGS ITS DECODER", b"RAISES IN ITS DECODER"
