"""The join of packets and processes: flows in, owners with their evidence out."""
