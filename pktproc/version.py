"""The version of pktproc, read by the build and by `pktproc --version`."""

__version__ = "0.1.0"
