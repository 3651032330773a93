"""Programs that make the traffic on which the engine `ebpf` is tested."""
