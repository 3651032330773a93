"""The exact engine: programs in the kernel tell who uses which socket."""
