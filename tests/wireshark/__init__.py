"""What Wireshark makes of pktproc, as tshark tells it."""
