/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who uses a socket, told when that is another process than before.
 *
 * Of TCP, a socket that a process has locked is left alone by code in a softirq: packets and timers wait for the owner
 * (include/net/sock.h, sock_owned_by_user). So what happens to a locked socket is the current process's doing.
 */
#pragma once

#include "telling.h"

#define MOST_SOCKETS (1 << 17) /* what is forgotten is told again at its next use */
#define PID_BITS 22            /* include/linux/threads.h, PID_MAX_LIMIT */
#define PID_MASK ((1ULL << PID_BITS) - 1)
#define CLOSED_SOCKET 2         /* in the place of both pids: that of kthreadd, which has no sockets */
#define NS_PER_US 1000
#define SOCK_COMMON_BYTES 128 /* up to the last member that is read of it */

/*
 * The present users of a socket. Who does the one is taken to do the other as well, until another process does it. What
 * happens to a closed socket is told no more.
 *
 * Sockets take turns at a place that their cookie gives. Nothing is locked: each word holds a mark of the socket that it is
 * of, beside a pid. This costs a tenth of a map that allocates.
 */
struct users {
	__u64 sender;
	__u64 receiver;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MOST_SOCKETS);
	__type(key, __u32);
	__type(value, struct users);
} sockets SEC(".maps");

/* When a socket's receiver last received; a table of its own, since most sockets that open and close never come to it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MOST_SOCKETS);
	__type(key, __u32);
	__type(value, __u64);
} received SEC(".maps");

static __always_inline __u64 mark_of_socket(__u64 cookie)
{
	return cookie << 32 | (shared.generation << PID_BITS & 0xffffffff);
}

/* Return the place for a socket's users, which may hold another's; never NULL, but the verifier wants it tested. */
static __always_inline struct users *users_of(__u64 cookie)
{
	__u32 place = cookie % MOST_SOCKETS;

	return bpf_map_lookup_elem(&sockets, &place);
}

/* Return the cookie of a socket, without a call where it has one already; what `asked` has to be depends on the hook. */
static __always_inline __u64 cookie_of(struct sock *sk, void *asked)
{
	__u64 cookie = sk->__sk_common.skc_cookie.counter;

	return cookie ? cookie : bpf_get_socket_cookie(asked);
}

static __always_inline bool is_tcp_socket(struct sock *sk)
{
	return sk->sk_protocol == PROTOCOL_TCP && sk->sk_type == TYPE_STREAM;
}

/* Return the pid that a word holds, 0 if it is of another socket. */
static __always_inline __u32 pid_in(__u64 word, __u64 mark)
{
	return (word & ~PID_MASK) == mark ? word & PID_MASK : 0;
}

/* Say whether it is known that a process does something of which another process is the last to have done it. */
static __always_inline bool is_known(__u64 doer, __u64 other, __u64 mark, __u32 pid)
{
	if (doer == (mark | pid) || doer == (mark | CLOSED_SOCKET))
		return true;
	return other == (mark | pid) && !pid_in(doer, mark);
}

static __always_inline void copy_v6(__u8 *to, const __u8 *address)
{
	for (int i = 0; i < 16; i += 4)
		*(__u32 *)(to + i) = *(const __u32 *)(address + i);
}

static __always_inline void map_v4(__u8 *to, __be32 address)
{
	*(__u64 *)to = 0;
	*(__u32 *)(to + 8) = bpf_htonl(0xffff);
	*(__u32 *)(to + 12) = address;
}

/* The ends that a socket has by itself; `sk` is one that the verifier knows. */
static __always_inline void own_ends(struct ends *ends, struct sock *sk)
{
	struct sock_common *common = &sk->__sk_common;

	ends->netns = common->skc_net.net->ns.inum;
	ends->protocol = sk->sk_protocol;
	ends->type = sk->sk_type;
	ends->local_port = common->skc_num;
	ends->remote_port = bpf_ntohs(common->skc_dport);
	if (common->skc_family == AF_INET6) {
		copy_v6(ends->local, common->skc_v6_rcv_saddr.in6_u.u6_addr8);
		copy_v6(ends->remote, common->skc_v6_daddr.in6_u.u6_addr8);
	} else {
		map_v4(ends->local, common->skc_rcv_saddr);
		map_v4(ends->remote, common->skc_daddr);
	}
}

/* Tell what the current task does with a socket at a time, or now. */
static __always_inline void tell_use(enum kind kind, __u64 cookie, struct sock *sk, __u64 time_ns, __u64 previous_ns)
{
	struct telling telling = begin(kind, cookie, time_ns);

	if (!telling.event)
		return;
	telling.event->previous_ns = previous_ns;
	own_ends(&telling.event->ends, sk);
	end_naming(telling);
}

static __always_inline void sends(struct sock *sk, __u64 cookie, __u64 time_ns)
{
	__u64 mark = mark_of_socket(cookie);
	struct users *known = users_of(cookie);
	__u32 pid = current_pid();

	if (!known || is_known(known->sender, known->receiver, mark, pid))
		return;
	tell_use(SENT, cookie, sk, time_ns, 0);
	known->sender = mark | pid;
}

/* Note that the current task receives, and that what it has received by now came at `latest_ns` at the latest. */
static __always_inline void receives(struct sock *sk, __u64 latest_ns)
{
	__u64 cookie = cookie_of(sk, sk), mark = mark_of_socket(cookie);
	struct users *known = users_of(cookie);
	__u32 pid = current_pid(), place = cookie % MOST_SOCKETS;
	__u64 *received_ns = bpf_map_lookup_elem(&received, &place);

	if (!known || !received_ns || known->receiver == (mark | CLOSED_SOCKET))
		return;
	if (!is_known(known->receiver, known->sender, mark, pid))
		tell_use(RECEIVED, cookie, sk, 0, pid_in(known->receiver, mark) ? *received_ns : 0);
	if (known->receiver != (mark | pid))
		known->receiver = mark | pid;
	*received_ns = latest_ns;
}

static __always_inline bool is_inet(struct sock *sk)
{
	return sk->__sk_common.skc_family == AF_INET || sk->__sk_common.skc_family == AF_INET6;
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(sock_send_length, struct sock *sk, int returned, int flags)
{
	if (returned >= 0 && is_inet(sk))
		sends(sk, cookie_of(sk, sk), 0);
	return 0;
}

/* Return when the latest segment of a connection was dealt with: what its owner reads came no later. */
static __always_inline __u64 latest_segment_ns(struct sock *sk)
{
	struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);

	return tcp ? tcp->tcp_mstamp * NS_PER_US : bpf_ktime_get_ns();
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(sock_recv_length, struct sock *sk, int returned, int flags)
{
	if (returned >= 0 && is_inet(sk))
		receives(sk, is_tcp_socket(sk) ? latest_segment_ns(sk) : bpf_ktime_get_ns());
	return 0;
}

/* For kernels that do not have sock_recv_length; called for each segment that is read, and for splice(2), too. */
SEC("tp_btf/tcp_rcv_space_adjust")
int BPF_PROG(tcp_rcv_space_adjust, struct sock *sk)
{
	if (sk->sk_lock.owned)
		receives(sk, latest_segment_ns(sk));
	return 0;
}

/* What all sockets have in common, copied at once from one that can only be probed. */
struct copied {
	__u8 bytes[SOCK_COMMON_BYTES];
};

#define COPIED(copied, type, member) \
	(*(const type *)((copied)->bytes + bpf_core_field_offset(struct sock_common, member)))

/* Fill in the namespace, port and address of this end of the socket that a program of a cgroup is called for. */
static __always_inline void copy_local(struct event *event, struct bpf_sock *ctx, bool v6)
{
	struct ends *ends = &event->ends;
	struct copied copied = {};
	struct net *net;

	/* What is written into a map is plain when it is read again. */
	*(struct bpf_sock *volatile *)&event->previous_ns = ctx;
	bpf_probe_read_kernel(&copied, sizeof(copied), *(void *volatile *)&event->previous_ns);
	event->previous_ns = 0;
	net = COPIED(&copied, possible_net_t, skc_net).net;
	bpf_probe_read_kernel(&ends->netns, sizeof(ends->netns), &net->ns.inum);
	ends->local_port = COPIED(&copied, __u16, skc_num);
	if (v6)
		copy_v6(ends->local, COPIED(&copied, struct in6_addr, skc_v6_rcv_saddr).in6_u.u6_addr8);
	else
		map_v4(ends->local, COPIED(&copied, __be32, skc_rcv_saddr));
}

static __always_inline void tell_bound(struct bpf_sock *ctx, bool v6)
{
	struct telling telling = begin(BOUND, bpf_get_socket_cookie(ctx), 0);

	if (!telling.event)
		return;
	telling.event->ends.protocol = ctx->protocol;
	telling.event->ends.type = ctx->type;
	telling.event->ends.remote_port = 0;
	__builtin_memset(telling.event->ends.remote, 0, sizeof(telling.event->ends.remote));
	copy_local(telling.event, ctx, v6);
	end_naming(telling);
}

/* Return the port of a connection, which is still known when it was given back (net/ipv4/inet_hashtables.c, __inet_put_port). */
static __always_inline __u16 port_of(struct sock *sk)
{
	__u16 port = sk->__sk_common.skc_num;
	struct inet_sock *inet;

	if (port)
		return port;
	inet = launder(sk);
	return bpf_ntohs(BPF_CORE_READ(inet, inet_sport));
}

/* Tell of a connection that was begun whether it was answered; one that got no port was none. */
static __always_inline void tell_begun(struct sock *sk, __u64 cookie, bool answered)
{
	struct telling telling;
	struct users *known;
	__u16 port = port_of(sk);

	if (!port)
		return;
	telling = begin(answered ? CONNECTS : GIVES_UP, cookie, 0);
	if (!telling.event)
		return;
	own_ends(&telling.event->ends, sk);
	telling.event->ends.local_port = port;
	end(telling);
	known = users_of(cookie);
	if (!known || known->sender != (mark_of_socket(cookie) | CLOSED_SOCKET))
		return;
	telling = begin(CLOSED, cookie, 0); /* it was given up by closing it (net/ipv4/af_inet.c, inet_release) */
	if (telling.event)
		end(telling);
}

/*
 * Tell who begins a connection and, once it is answered or given up, which one that is: only then it certainly has a port. This
 * is for those who do not follow packets, since a program that every packet passes costs bulk traffic more than all others.
 */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(inet_sock_set_state, struct sock *sk, int before, int now)
{
	struct users *known;
	__u64 cookie;

	if ((before != TCP_SYN_SENT && now != TCP_SYN_SENT) || !is_tcp_socket(sk))
		return 0;
	cookie = cookie_of(sk, sk);
	if (before == TCP_SYN_SENT) {
		tell_begun(sk, cookie, now != TCP_CLOSE);
		return 0;
	}
	tell_use(BOUND, cookie, sk, 0, 0);
	known = users_of(cookie);
	if (known)
		known->sender = mark_of_socket(cookie) | current_pid();
	return 0;
}

SEC("cgroup/post_bind4")
int bound_v4(struct bpf_sock *ctx)
{
	tell_bound(ctx, false);
	return 1;
}

SEC("cgroup/post_bind6")
int bound_v6(struct bpf_sock *ctx)
{
	tell_bound(ctx, true);
	return 1;
}

/* Tell of a connection that was accepted and closed without a byte. */
static __always_inline void tell_unused(struct bpf_sock *ctx, __u64 cookie)
{
	struct telling telling = begin(CLOSED, cookie, 0);
	struct ends *ends;

	if (!telling.event)
		return;
	ends = &telling.event->ends;
	ends->protocol = ctx->protocol;
	ends->type = ctx->type;
	ends->remote_port = bpf_ntohs(ctx->dst_port);
	if (ctx->family == AF_INET6) {
		__u32 words[] = {ctx->dst_ip6[0], ctx->dst_ip6[1], ctx->dst_ip6[2], ctx->dst_ip6[3]};

		__builtin_memcpy(ends->remote, words, sizeof(words));
	} else {
		map_v4(ends->remote, ctx->dst_ip4);
	}
	copy_local(telling.event, ctx, ctx->family == AF_INET6);
	end_naming(telling);
}

SEC("cgroup/sock_release")
int sock_release(struct bpf_sock *ctx)
{
	__u64 cookie = bpf_get_socket_cookie(ctx), mark = mark_of_socket(cookie);
	struct users *known = users_of(cookie);
	struct telling telling;

	if (known && (pid_in(known->sender, mark) || pid_in(known->receiver, mark))) {
		known->sender = known->receiver = mark | CLOSED_SOCKET;
		telling = begin(CLOSED, cookie, 0);
		if (telling.event)
			end(telling);
	} else if (ctx->protocol == PROTOCOL_TCP && (ctx->state == TCP_ESTABLISHED || ctx->state == TCP_CLOSE_WAIT)) {
		tell_unused(ctx, cookie);
	}
	return 1;
}
