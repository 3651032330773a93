"""Facts from the kernel, compared with procfs trees made by hand and with what ss, ip and the kernel say."""
