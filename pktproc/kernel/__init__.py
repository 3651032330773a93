"""Facts in: sockets, processes, addresses and namespaces as the kernel reports them."""
