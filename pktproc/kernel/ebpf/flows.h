/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Packets that leave sockets or reach them: each flow is told when it begins, and when another process sends it. */
#pragma once

#include "packets.h"

#define MOST_FLOWS (1 << 18)
#define OF_PACKET_SOCKETS (1ULL << 63) /* with a pid in the place of a cookie */

/* Who sends a flow, beside a mark of it; of one that arrives the pid is 0. There are two places for each. */
struct senders {
	__u64 latest;
	__u64 before;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MOST_FLOWS / 2);
	__type(key, __u32);
	__type(value, struct senders);
} flows SEC(".maps");

/*
 * Say whether the current task is what made this happen, and not a softirq that came in between: those have a stack of
 * their own (kernel/softirq.c, do_softirq_own_stack). Sockets of the kernel's own, such as the one that ICMP errors leave by,
 * are nobody's.
 */
static __always_inline bool is_of_task(struct sock *sk)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 depth, mark = 0;

	depth = (__u64)launder(&mark) - (__u64)BPF_CORE_READ(task, stack);
	return depth < THREAD_BYTES && !BPF_CORE_READ_BITFIELD_PROBED(sk, sk_kern_sock);
}

/* Tell of a connection that comes in; its socket is yet to be made, `sk` is the one that listens. */
static __always_inline void comes_in(struct __sk_buff *skb, struct sock *sk)
{
	struct packet packet = {.skb = skb};
	struct flow_key flow = {};
	struct telling telling;

	if (!read_flow(&packet, &flow))
		return;
	flow.ends.netns = sk->__sk_common.skc_net.net->ns.inum;
	telling = begin(COMES_IN, 0, skb->tstamp); /* net/ipv4/tcp_output.c, tcp_make_synack */
	if (!telling.event)
		return;
	telling.event->ends = flow.ends;
	end(telling);
}

/* Say whether a thread of the kernel sends for a process, as that of Multipath TCP does. */
static __always_inline bool is_sent_on_behalf(struct sock *sk)
{
	struct tcp_sock *tcp = (void *)sk;

	if (!(bpf_get_current_task_btf()->flags & PF_KTHREAD) || !bpf_core_field_exists(tcp->is_mptcp))
		return false;
	tcp = launder(sk);
	return BPF_CORE_READ_BITFIELD_PROBED(tcp, is_mptcp);
}

/* Return a number that no two flows have in common but by a chance of 1 in 2^59. */
static __always_inline __u64 number_of(const struct flow_key *flow)
{
	const __u64 *words = (const void *)flow;
	__u64 number = shared.generation;

	for (unsigned int i = 0; i < sizeof(*flow) / sizeof(*words); i++) {
		number = (number ^ words[i]) * 0x9e3779b97f4a7c15;
		number ^= number >> 32;
	}
	return number;
}

/*
 * Tell of a flow, unless it is known that this process sends it or, with pid 0, that it arrives. `of_task` says that it
 * need not be asked whether it is the current process that sends.
 */
static __always_inline bool tell_flow(struct flow_key *flow, void *socket, enum kind kind, __u32 pid, bool of_task)
{
	__u64 number = number_of(flow), word = (number & ~PID_MASK) | pid;
	__u32 place = number % (MOST_FLOWS / 2);
	struct senders *known = bpf_map_lookup_elem(&flows, &place);
	struct telling telling;
	struct sock *sk;

	if (!known || known->latest == word || known->before == word)
		return false;
	sk = launder(socket);
	if (!of_task && !is_of_task(sk))
		return false;
	flow->ends.netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	telling = begin(kind, flow->cookie, 0);
	if (!telling.event)
		return false;
	telling.event->ends = flow->ends;
	if (kind == SENT)
		end_naming(telling);
	else
		end(telling);
	if ((known->latest ^ word) & ~PID_MASK)
		known->before = known->latest;
	known->latest = word;
	return true;
}

static __always_inline void other_leaves(struct __sk_buff *skb, struct bpf_sock *socket)
{
	struct flow_key flow = {.cookie = bpf_get_socket_cookie(skb)};
	struct packet packet = {.skb = skb};
	__u32 pid = current_pid();
	struct users *known;

	if (!read_flow(&packet, &flow) || !tell_flow(&flow, socket, SENT, pid, false))
		return;
	known = users_of(flow.cookie);
	if (known)
		known->sender = mark_of_socket(flow.cookie) | pid;
}

SEC("cgroup_skb/egress")
int egress(struct __sk_buff *skb)
{
	struct bpf_sock *socket = skb->sk;
	enum segment segment;
	struct sock *sk;

	if (!socket)
		return 1;
	segment = segment_of(skb, socket->src_port);
	if (segment == BARE)
		return 1;
	sk = segment == NONE ? NULL : (void *)bpf_skc_to_tcp_sock(socket);
	if (sk && sk->sk_type == TYPE_STREAM) {
		if (segment == ANSWERS)
			comes_in(skb, sk);
		else if (sk->sk_lock.owned && !is_sent_on_behalf(sk))
			sends(sk, cookie_of(sk, skb), ((struct tcp_sock *)sk)->tcp_clock_cache);
		return 1;
	}
	socket = bpf_sk_fullsock(socket);
	if (socket)
		other_leaves(skb, socket);
	return 1;
}

/* What packet sockets send does not pass cgroups. Those of a process count as one: the verifier refuses their cookies. */
SEC("tp_btf/net_dev_queue")
int BPF_PROG(net_dev_queue, struct sk_buff *skb)
{
	struct packet packet = {};
	struct flow_key flow = {};
	struct sock *sk = skb->sk;

	if (!sk || sk->__sk_common.skc_family != AF_PACKET)
		return 0;
	flow.cookie = OF_PACKET_SOCKETS | current_pid();
	packet.start = skb->head + skb->network_header;
	if (read_flow(&packet, &flow))
		tell_flow(&flow, sk, SENT, current_pid(), true);
	return 0;
}

static __always_inline void reaches(struct __sk_buff *skb, struct bpf_sock *socket)
{
	struct flow_key flow = {.cookie = bpf_get_socket_cookie(skb), .arrives = 1};
	struct packet packet = {.skb = skb};

	if (read_flow(&packet, &flow) && flow.ends.protocol != PROTOCOL_TCP)
		tell_flow(&flow, socket, ARRIVES, 0, true);
}

/* Say whether a packet that came in is seen at once to be of TCP, which is not followed here. */
static __always_inline bool is_tcp(const struct __sk_buff *skb)
{
	const __u8 *start = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

	if (start + sizeof(struct v4_header) > end)
		return false;
	return (start[0] >> 4 == 4 ? start[9] : start[6]) == PROTOCOL_TCP;
}

SEC("cgroup_skb/ingress")
int ingress(struct __sk_buff *skb)
{
	struct bpf_sock *socket;

	if (is_tcp(skb))
		return 1;
	socket = skb->sk;
	if (socket)
		reaches(skb, socket);
	return 1;
}
