/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The few kernel structures that the programs read, with only the members that they read. libbpf moves each access to
 * where the running kernel has the member (CO-RE), so neither order nor distance matters here.
 */
#pragma once

#include <linux/bpf.h>
#include <stdbool.h>

#define AF_INET 2
#define AF_INET6 10
#define AF_PACKET 17
#define PF_KTHREAD 0x00200000  /* include/linux/sched.h */
#define THREAD_BYTES 16384     /* THREAD_SIZE of x86-64 and arm64 */

enum { TCP_ESTABLISHED = 1, TCP_SYN_SENT = 2, TCP_CLOSE = 7, TCP_CLOSE_WAIT = 8 };
enum { TYPE_STREAM = 1 }; /* include/linux/net.h */
enum { PROTOCOL_ICMP = 1, PROTOCOL_TCP = 6, PROTOCOL_UDP = 17, PROTOCOL_DCCP = 33, PROTOCOL_ICMPV6 = 58 };
enum { PROTOCOL_SCTP = 132, PROTOCOL_UDPLITE = 136 };

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct in6_addr {
	union {
		__u8 u6_addr8[16];
	} in6_u;
};

typedef struct {
	__s64 counter;
} atomic64_t;

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	possible_net_t skc_net;
	atomic64_t skc_cookie;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
};

typedef struct {
	int owned;
} socket_lock_t;

struct sock {
	struct sock_common __sk_common;
	socket_lock_t sk_lock;
	__u16 sk_type;
	__u16 sk_protocol;
	__u8 sk_kern_sock : 1;
};

struct inet_sock { /* it begins with a struct sock, as the next does */
	__be16 inet_sport;
};

struct tcp_sock {
	__u64 tcp_mstamp;      /* when it last sent or was sent a segment, CLOCK_MONOTONIC in microseconds */
	__u64 tcp_clock_cache; /* the same in nanoseconds */
	__u8 is_mptcp : 1;
};

struct sk_buff {
	struct sock *sk;
	unsigned char *head;
	__u16 network_header;
};

struct inode {
	unsigned short i_mode;
	unsigned long i_ino;
};

struct file {
	struct inode *f_inode;
};

struct socket {
	struct sock *sk;
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct kernfs_node {
	__u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

typedef struct {
	__u32 val;
} kuid_t;

struct cred {
	kuid_t euid;
};

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live;
};

struct mm_struct {
	unsigned long arg_start;
	unsigned long arg_end;
};

struct task_struct {
	void *stack;
	unsigned int flags;
	unsigned in_execve : 1;
	int pid;
	int tgid;
	__u64 start_boottime;
	char comm[16];
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	const struct cred *real_cred;
	struct mm_struct *mm;
	struct css_set *cgroups;
	struct signal_struct *signal;
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
};

struct linux_binprm {
	const char *interp;
};

#pragma clang attribute pop
