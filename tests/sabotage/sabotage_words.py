"""The first bytes of scans that kill, hang or break their decoder. In a module of their own for tests to import."""

KILLS, HANGS, RAISES = b"KILLS ITS DECODER", b"HANGS ITS DECODER", b"RAISES IN ITS DECODER"
