"""What a scan's bytes begin with that is to kill or to hang its decoder. Nothing else, so that tests can import it."""

KILLS, HANGS = b"KILLS ITS DECODER", b"HANGS ITS DECODER"
