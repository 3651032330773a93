/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the programs tell; `events.py` has the same layouts as NumPy dtypes, and a test compares both. */
#pragma once

#include <linux/types.h>

#define COMM_BYTES 16
#define PATH_BYTES 256
#define ARGUMENT_BYTES 1024

enum kind {
	BOUND = 1,      /* a socket was bound to a port; of TCP that is a listener, or who connects */
	CONNECTS = 2,   /* a connection was answered that somebody began, who was told of as BOUND; no process in it */
	GIVES_UP = 3,   /* or it was refused, timed out or was closed before */
	SENT = 4,       /* another process than before sends from a socket */
	RECEIVED = 5,   /* another process than before receives from a socket */
	ARRIVES = 6,    /* a flow begins to reach a socket; no process in it */
	COMES_IN = 7,   /* a connection begins to come in, which has no socket yet; neither cookie nor process in it */
	CLOSED = 8,     /* a socket was closed; process and ends are in it if nobody is known to have used it before */
	FORKED = 16,    /* of this and the following only the process is meant */
	EXECUTED = 17,  /* with the number of an execution in the place of the cookie */
	RENAMED = 18,
	EXITED = 19,
};

struct process_facts {
	__u64 start_ns; /* since boot, suspended time included */
	__u64 cgroup;   /* inode number of its directory in cgroup v2 */
	__u32 pid;
	__u32 ppid;
	__u32 uid;
	__u32 kernel; /* 1 for a thread of the kernel */
	char comm[COMM_BYTES];
};

/* Addresses are 16 bytes, IPv4 mapped into IPv6; ports are in the order of this machine. */
struct ends {
	__u8 local[16];
	__u8 remote[16];
	__u32 netns;
	__u16 protocol;
	__u16 local_port;
	__u16 remote_port;
	__u16 type; /* SOCK_STREAM and so on, where these are the ends of a socket itself */
};

/* Two lines of the processor's cache, of which the first is all that is written of a socket that was closed. */
struct event {
	__u32 sequence; /* its place among all events, from 1 on; written last */
	__u16 kind;
	__u16 named; /* 1 if there is a process in it */
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u64 cookie;
	__u64 previous_ns; /* RECEIVED: when the process before last received; 0 if there was none */
	struct ends ends;
	__u32 padding;
	struct process_facts process;
};

/* A program that begins; those that came since have taken its place if there were too many of them. */
struct execution {
	__u32 argument_bytes;
	__u32 padding;
	char path[PATH_BYTES]; /* what was loaded: of a script its interpreter */
	char arguments[ARGUMENT_BYTES];
};

/* What the iterator over open files writes: a process and a socket that it holds. */
struct holding {
	__u64 inode;
	__u64 start_ns; /* of the process, as above */
	__u32 pid;
	__u32 padding;
};

_Static_assert(sizeof(struct holding) == 24, "as HOLDING in events.py");
_Static_assert(sizeof(struct process_facts) == 48, "as PROCESS in events.py");
_Static_assert(sizeof(struct ends) == 44, "as ENDS in events.py");
_Static_assert(sizeof(struct event) == 128, "as EVENT in events.py");
_Static_assert(sizeof(struct execution) == 1288, "as EXECUTION in events.py");
