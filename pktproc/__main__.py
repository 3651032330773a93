"""`python -m pktproc` is the same as `pktproc`."""

from pktproc.cli import main

if __name__ == "__main__":
    main()
