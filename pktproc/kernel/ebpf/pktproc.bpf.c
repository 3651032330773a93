// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Who uses which socket, told before the packet leaves or moments after it came.
 *
 * What is told is told once: a socket's sender and receiver when they change, a flow when it begins. In a softirq the
 * current task is a bystander, so no program takes a process from there.
 */
#include "kernel_types.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "events.h"

char LICENSE[] SEC("license") = "GPL";

#define RING_BYTES (16 << 20)  /* 130,000 socket events; it is emptied at least five times a second */
#define MOST_SOCKETS (1 << 17) /* what is forgotten is told again at its next use */
#define MOST_FLOWS (1 << 18)
#define OF_PACKET_SOCKETS (1ULL << 63) /* with a pid in the place of a cookie */
#define MOST_EXTENSIONS 4      /* IPv6 extension headers that are passed over */
#define PID_BITS 22            /* include/linux/threads.h, PID_MAX_LIMIT */
#define PID_MASK ((1ULL << PID_BITS) - 1)

enum { PROTOCOL_ICMP = 1, PROTOCOL_TCP = 6, PROTOCOL_UDP = 17, PROTOCOL_DCCP = 33, PROTOCOL_ICMPV6 = 58 };
enum { PROTOCOL_SCTP = 132, PROTOCOL_UDPLITE = 136 };
enum { ECHO_REPLY = 0, ECHO_REQUEST = 8, ECHO_REQUEST_V6 = 128, ECHO_REPLY_V6 = 129 };
enum { TCP_FLAG_FIN = 1, TCP_FLAG_SYN = 2, TCP_FLAG_ACK = 16 };
enum { TYPE_STREAM = 1 };

/*
 * Of TCP, a socket that a process has locked is left alone by code in a softirq: packets and timers wait for the owner
 * (include/net/sock.h, sock_owned_by_user). So what happens to a locked socket is the current process's doing.
 */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
} ring SEC(".maps");

/*
 * The present users of a socket. Who does the one is taken to do the other as well, until another process does it. What
 * happens to a closed socket is told no more.
 *
 * Sockets take turns at a place that their cookie gives. Nothing is locked: each word but the time holds a mark of the
 * socket that it is of, beside a pid, or a 1 if it is closed. This costs a tenth of a map that allocates.
 */
struct users {
	__u64 sender;
	__u64 receiver;
	__u64 received_ns;
	__u64 closed;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MOST_SOCKETS);
	__type(key, __u32);
	__type(value, struct users);
} sockets SEC(".maps");

struct flow_key {
	__u64 cookie;
	struct ends ends;
	__u32 arrives;
};

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

/* `lost` counts events for which the ring had no room. The reader raises `generation` to have everything told anew. */
struct {
	__u64 lost;
	__u64 generation;
	/* These take no room; they are here so that the object's type information has them. */
	enum kind kinds[0];
	struct socket_event socket_events[0];
	struct process_event process_events[0];
	struct execution_event execution_events[0];
	struct holding holdings[0];
} shared SEC(".bss");

/* Turn a pointer that the verifier follows into one that can only be read by probing. */
static __always_inline void *launder(void *pointer)
{
	void *plain = NULL;

	bpf_probe_read_kernel(&plain, sizeof(plain), &pointer);
	return plain;
}

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

static __always_inline __u32 current_pid(void)
{
	return bpf_get_current_task_btf()->tgid;
}

static __always_inline void describe(struct process_facts *facts, struct task_struct *task)
{
	struct task_struct *leader = task->group_leader;

	facts->pid = task->tgid;
	facts->ppid = leader->real_parent->tgid;
	facts->start_ns = leader->start_boottime;
	facts->uid = leader->real_cred->euid.val;
	facts->cgroup = leader->cgroups->dfl_cgrp->kn->id;
	facts->kernel = !!(task->flags & PF_KTHREAD);
	__builtin_memcpy(facts->comm, leader->comm, COMM_BYTES);
}

static __always_inline void *reserve(__u64 bytes)
{
	void *event = bpf_ringbuf_reserve(&ring, bytes, 0);

	if (!event)
		__sync_fetch_and_add(&shared.lost, 1);
	return event;
}

/* The reader looks at the ring before each block of packets, so nobody is woken. */
static __always_inline void submit(void *event)
{
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
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

/* Begin to tell something of a socket; return NULL if there is no room. */
static __always_inline struct socket_event *begin(enum kind kind, __u64 cookie, __u64 previous_ns)
{
	struct socket_event *event = reserve(sizeof(*event));

	if (event) {
		event->time_ns = bpf_ktime_get_ns();
		event->kind = kind;
		event->cookie = cookie;
		event->previous_ns = previous_ns;
		event->process.pid = 0;
	}
	return event;
}

/* End it; with `process` also say who is behind it, which is the current task. */
static __always_inline bool end(struct socket_event *event, bool process)
{
	if (process)
		describe(&event->process, bpf_get_current_task_btf());
	submit(event);
	return true;
}

static __always_inline bool tell(enum kind kind, __u64 cookie, const struct ends *ends, bool process)
{
	struct socket_event *event = begin(kind, cookie, 0);

	if (!event)
		return false;
	event->ends = *ends;
	return end(event, process);
}

static __always_inline bool tell_of(enum kind kind, __u64 cookie, struct sock *sk, __u64 previous_ns)
{
	struct socket_event *event = begin(kind, cookie, previous_ns);

	if (!event)
		return false;
	own_ends(&event->ends, sk);
	return end(event, true);
}

static __always_inline void tell_closed(__u64 cookie)
{
	struct socket_event *event = begin(CLOSED, cookie, 0);

	if (event)
		end(event, false);
}

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

/* Return the pid that a word holds, 0 if it is of another socket. */
static __always_inline __u32 pid_in(__u64 word, __u64 mark)
{
	return (word & ~PID_MASK) == mark ? word & PID_MASK : 0;
}

/* Say whether it is known that a process does something of which another process is the last to have done it. */
static __always_inline bool is_known(__u64 doer, __u64 other, __u64 closed, __u64 mark, __u32 pid)
{
	if (pid_in(closed, mark))
		return true;
	return doer == (mark | pid) || (!pid_in(doer, mark) && other == (mark | pid));
}

static __always_inline bool sends_already(const struct users *known, __u64 mark, __u32 pid)
{
	return is_known(known->sender, known->receiver, known->closed, mark, pid);
}

static __always_inline void sends(struct sock *sk, __u64 cookie)
{
	__u64 mark = mark_of_socket(cookie);
	struct users *known = users_of(cookie);
	__u32 pid = current_pid();

	if (known && !sends_already(known, mark, pid) && tell_of(SENT, cookie, sk, 0))
		known->sender = mark | pid;
}

static __always_inline void receives(struct sock *sk)
{
	__u64 cookie = bpf_get_socket_cookie(sk), mark = mark_of_socket(cookie), before_ns;
	struct users *known = users_of(cookie);
	__u32 pid = current_pid();

	if (!known)
		return;
	before_ns = pid_in(known->receiver, mark) ? known->received_ns : 0;
	if (!is_known(known->receiver, known->sender, known->closed, mark, pid) &&
	    !tell_of(RECEIVED, cookie, sk, before_ns))
		return;
	known->receiver = mark | pid;
	known->received_ns = bpf_ktime_get_ns();
}

static __always_inline bool is_inet(struct sock *sk)
{
	return sk->__sk_common.skc_family == AF_INET || sk->__sk_common.skc_family == AF_INET6;
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(sock_send_length, struct sock *sk, int returned, int flags)
{
	if (returned >= 0 && is_inet(sk))
		sends(sk, bpf_get_socket_cookie(sk));
	return 0;
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(sock_recv_length, struct sock *sk, int returned, int flags)
{
	if (returned >= 0 && is_inet(sk))
		receives(sk);
	return 0;
}

/* Also called for splice(2) out of a socket, and on kernels that do not have sock_recv_length. */
SEC("tp_btf/tcp_rcv_space_adjust")
int BPF_PROG(tcp_rcv_space_adjust, struct sock *sk)
{
	if (sk->sk_lock.owned)
		receives(sk);
	return 0;
}

/* Fill in the namespace and protocol of a socket that can only be probed. */
static __always_inline void probe_socket(struct ends *ends, struct sock *sk)
{
	ends->netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	ends->protocol = BPF_CORE_READ(sk, sk_protocol);
}

SEC("cgroup/sock_create")
int sock_create(struct bpf_sock *ctx)
{
	struct ends ends = {};

	if (ctx->type == TYPE_STREAM)
		return 1;
	probe_socket(&ends, launder(ctx));
	tell(CREATED, bpf_get_socket_cookie(ctx), &ends, true);
	return 1;
}

static __always_inline void probe_ends(struct ends *ends, struct sock *sk)
{
	probe_socket(ends, sk);
	ends->local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
	ends->remote_port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	if (BPF_CORE_READ(sk, __sk_common.skc_family) == AF_INET6) {
		BPF_CORE_READ_INTO(&ends->local, sk, __sk_common.skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO(&ends->remote, sk, __sk_common.skc_v6_daddr);
	} else {
		map_v4(ends->local, BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr));
		map_v4(ends->remote, BPF_CORE_READ(sk, __sk_common.skc_daddr));
	}
}

SEC("cgroup/sock_release")
int sock_release(struct bpf_sock *ctx)
{
	__u64 cookie = bpf_get_socket_cookie(ctx), mark = mark_of_socket(cookie);
	struct users *known = users_of(cookie);
	struct ends ends;

	if (known && (pid_in(known->sender, mark) || pid_in(known->receiver, mark))) {
		known->closed = mark | 1;
		tell_closed(cookie);
	} else if (ctx->protocol == PROTOCOL_TCP && (ctx->state == TCP_ESTABLISHED || ctx->state == TCP_CLOSE_WAIT)) {
		/* accepted and closed without a byte */
		__builtin_memset(&ends, 0, sizeof(ends));
		probe_ends(&ends, launder(ctx));
		tell(CLOSED, cookie, &ends, true);
	}
	return 1;
}

/* What of a packet's transport header tells its flow. */
struct transport {
	__be16 source;
	__be16 destination;
	__be16 id; /* of an ICMP echo (RFC 792) */
	__be16 rest;
};

struct v4_header {
	__u8 words;
	__u8 tos;
	__be16 length;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__u16 checksum;
	__be32 source;
	__be32 destination;
};

struct v6_header {
	__be32 label;
	__be16 length;
	__u8 next;
	__u8 hops;
	__u8 source[16];
	__u8 destination[16];
};

/* An IP packet: that of a cgroup program's context, or one in memory that can only be probed. */
struct packet {
	struct __sk_buff *skb;
	const unsigned char *start;
};

static __always_inline long load(const struct packet *packet, int offset, void *to, __u32 bytes)
{
	if (packet->skb)
		return bpf_skb_load_bytes(packet->skb, offset, to, bytes);
	return bpf_probe_read_kernel(to, bytes, packet->start + offset);
}

static __always_inline int pass_extensions(const struct packet *packet, __u8 *next)
{
	int offset = sizeof(struct v6_header);
	__u8 header[2];

	for (int i = 0; i < MOST_EXTENSIONS; i++) {
		if (*next != 0 && *next != 43 && *next != 60) /* hop-by-hop, routing, destination options */
			break;
		if (load(packet, offset, header, sizeof(header)))
			return -1;
		*next = header[0];
		offset += (header[1] + 1) * 8;
	}
	return offset;
}

/* Fill in the addresses and protocol of a packet; return where its transport header is, -1 for none. */
static __always_inline int read_network(const struct packet *packet, struct flow_key *flow)
{
	__u8 version;

	if (load(packet, 0, &version, 1))
		return -1;
	if (version >> 4 == 4) {
		struct v4_header ip;

		if (load(packet, 0, &ip, sizeof(ip)))
			return -1;
		flow->ends.protocol = ip.protocol;
		map_v4(flow->arrives ? flow->ends.remote : flow->ends.local, ip.source);
		map_v4(flow->arrives ? flow->ends.local : flow->ends.remote, ip.destination);
		return (ip.words & 15) * 4;
	}
	if (version >> 4 == 6) {
		struct v6_header ip;
		int offset;

		if (load(packet, 0, &ip, sizeof(ip)))
			return -1;
		offset = pass_extensions(packet, &ip.next);
		flow->ends.protocol = ip.next;
		__builtin_memcpy(flow->arrives ? flow->ends.remote : flow->ends.local, ip.source, 16);
		__builtin_memcpy(flow->arrives ? flow->ends.local : flow->ends.remote, ip.destination, 16);
		return offset;
	}
	return -1;
}

static __always_inline bool has_ports(__u16 protocol)
{
	return protocol == PROTOCOL_TCP || protocol == PROTOCOL_UDP || protocol == PROTOCOL_UDPLITE ||
	       protocol == PROTOCOL_SCTP || protocol == PROTOCOL_DCCP;
}

/* Fill in the ports; of an ICMP echo the id is the port of who asks. */
static __always_inline void read_ports(struct flow_key *flow, const struct transport *header)
{
	if (has_ports(flow->ends.protocol)) {
		flow->ends.local_port = bpf_ntohs(flow->arrives ? header->destination : header->source);
		flow->ends.remote_port = bpf_ntohs(flow->arrives ? header->source : header->destination);
	} else if (flow->ends.protocol == PROTOCOL_ICMP || flow->ends.protocol == PROTOCOL_ICMPV6) {
		bool v6 = flow->ends.protocol == PROTOCOL_ICMPV6;
		__u8 type = *(const __u8 *)header;
		__u8 wanted = flow->arrives ? (v6 ? ECHO_REPLY_V6 : ECHO_REPLY) : (v6 ? ECHO_REQUEST_V6 : ECHO_REQUEST);

		if (type == wanted)
			flow->ends.local_port = bpf_ntohs(header->id);
	}
}

/* Read a flow from where its packet lies, if that has nothing between its network and its transport header. */
static __always_inline bool see_flow(const struct __sk_buff *skb, struct flow_key *flow)
{
	const __u8 *start = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u8 *source = flow->arrives ? flow->ends.remote : flow->ends.local;
	__u8 *destination = flow->arrives ? flow->ends.local : flow->ends.remote;
	const struct v4_header *v4 = (const void *)start;
	const struct v6_header *v6 = (const void *)start;

	if (start + sizeof(*v4) + sizeof(struct transport) > end)
		return false;
	if (v4->words == 0x45) {
		map_v4(source, v4->source);
		map_v4(destination, v4->destination);
		flow->ends.protocol = v4->protocol;
		read_ports(flow, (const void *)(v4 + 1));
		return true;
	}
	if (v4->words >> 4 != 6 || start + sizeof(*v6) + sizeof(struct transport) > end || !has_ports(v6->next))
		return false;
	copy_v6(source, v6->source);
	copy_v6(destination, v6->destination);
	flow->ends.protocol = v6->next;
	read_ports(flow, (const void *)(v6 + 1));
	return true;
}

static __always_inline bool read_flow(const struct packet *packet, struct flow_key *flow)
{
	struct transport header = {};
	int offset;

	if (packet->skb && see_flow(packet->skb, flow))
		return true;
	offset = read_network(packet, flow);
	if (offset < 0 || (load(packet, offset, &header, sizeof(header)) && has_ports(flow->ends.protocol)))
		return false;
	read_ports(flow, &header);
	return true;
}

/* What a TCP segment is to its sender; those that are BARE are the kernel's affair. */
enum segment { BARE, OPENS, ANSWERS, CARRIES };

/* Say what a segment is; where its headers cannot be seen at once, it may carry data. */
static __always_inline enum segment segment_of(const struct __sk_buff *skb)
{
	const __u8 *start = (void *)(long)skb->data, *end = (void *)(long)skb->data_end, *segment;
	__u32 headers;

	if (start + sizeof(struct v4_header) > end)
		return CARRIES;
	if (start[0] >> 4 == 4)
		headers = (start[0] & 15) * 4;
	else if (start[6] == PROTOCOL_TCP)
		headers = sizeof(struct v6_header);
	else
		return CARRIES;
	segment = start + headers;
	if (segment + 20 > end)
		return CARRIES;
	headers += (segment[12] >> 4) * 4;
	if (segment[13] & TCP_FLAG_SYN)
		return segment[13] & TCP_FLAG_ACK ? ANSWERS : OPENS;
	return skb->len > headers && !(segment[13] & TCP_FLAG_FIN) ? CARRIES : BARE;
}

/* Tell of a connection that comes in; its socket is yet to be made, `sk` is the one that listens. */
static __always_inline void comes_in(struct __sk_buff *skb, struct sock *sk)
{
	struct packet packet = {.skb = skb};
	struct flow_key flow = {};

	if (!read_flow(&packet, &flow))
		return;
	flow.ends.netns = sk->__sk_common.skc_net.net->ns.inum;
	tell(COMES_IN, 0, &flow.ends, false);
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

static __always_inline void tcp_leaves(struct __sk_buff *skb, struct bpf_sock *socket)
{
	enum segment segment = segment_of(skb);
	struct sock *sk;

	if (segment == BARE)
		return;
	sk = (struct sock *)bpf_skc_to_tcp_sock(socket);
	if (!sk)
		return;
	if (segment == ANSWERS)
		comes_in(skb, sk);
	else if (sk->sk_lock.owned && !is_sent_on_behalf(sk))
		sends(sk, bpf_get_socket_cookie(skb));
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
 * Tell of a flow, unless it is known that this process sends it or, with pid 0, that it arrives. `sk` can only be probed;
 * `of_task` says that it need not be asked whether it is the current process that sends.
 */
static __always_inline bool tell_flow(struct flow_key *flow, struct sock *sk, enum kind kind, __u32 pid, bool of_task)
{
	__u64 number = number_of(flow), word = (number & ~PID_MASK) | pid;
	__u32 place = number % (MOST_FLOWS / 2);
	struct senders *known = bpf_map_lookup_elem(&flows, &place);

	if (!known || known->latest == word || known->before == word || (!of_task && !is_of_task(sk)))
		return false;
	flow->ends.netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	if (!tell(kind, flow->cookie, &flow->ends, kind == SENT))
		return false;
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

	if (!read_flow(&packet, &flow) || !tell_flow(&flow, launder(socket), SENT, pid, false))
		return;
	known = users_of(flow.cookie);
	if (known)
		known->sender = mark_of_socket(flow.cookie) | pid;
}

SEC("cgroup_skb/egress")
int egress(struct __sk_buff *skb)
{
	struct bpf_sock *socket = skb->sk;

	if (socket)
		socket = bpf_sk_fullsock(socket);
	if (!socket)
		return 1;
	if (socket->protocol == PROTOCOL_TCP && socket->type == TYPE_STREAM)
		tcp_leaves(skb, socket);
	else
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
		tell_flow(&flow, launder(sk), SENT, current_pid(), true);
	return 0;
}

static __always_inline void reaches(struct __sk_buff *skb, struct bpf_sock *socket)
{
	struct flow_key flow = {.cookie = bpf_get_socket_cookie(skb), .arrives = 1};
	struct packet packet = {.skb = skb};

	if (read_flow(&packet, &flow) && flow.ends.protocol != PROTOCOL_TCP)
		tell_flow(&flow, launder(socket), ARRIVES, 0, true);
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

/* Write who holds a socket of the internet or a packet socket; run over all open files by whoever reads the iterator. */
SEC("iter/task_file")
int holders(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct holding holding = {};
	struct file *file = ctx->file;
	struct socket *socket;
	__u16 family;

	if (!task || !file)
		return 0;
	socket = bpf_sock_from_file(file);
	if (!socket || !socket->sk)
		return 0;
	family = socket->sk->__sk_common.skc_family;
	if (family != AF_INET && family != AF_INET6 && family != AF_PACKET)
		return 0;
	holding.inode = file->f_inode->i_ino;
	holding.start_ns = task->group_leader->start_boottime;
	holding.pid = task->tgid;
	bpf_seq_write(ctx->meta->seq, &holding, sizeof(holding));
	return 0;
}

static __always_inline void tell_life(enum kind kind, struct task_struct *task, const char *comm)
{
	struct process_event *event = reserve(sizeof(*event));

	if (!event)
		return;
	event->time_ns = bpf_ktime_get_ns();
	event->kind = kind;
	describe(&event->process, task);
	if (comm)
		bpf_probe_read_kernel_str(event->process.comm, COMM_BYTES, comm);
	submit(event);
}

static __always_inline bool leads(struct task_struct *task)
{
	return task->pid == task->tgid;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(sched_process_fork, struct task_struct *parent, struct task_struct *child)
{
	if (leads(child))
		tell_life(FORKED, child, NULL);
	return 0;
}

SEC("tp_btf/task_rename")
int BPF_PROG(task_rename, struct task_struct *task, const char *comm)
{
	if (leads(task) && !BPF_CORE_READ_BITFIELD_PROBED(task, in_execve))
		tell_life(RENAMED, task, comm);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(sched_process_exit, struct task_struct *task)
{
	if (task->signal->live.counter == 0)
		tell_life(EXITED, task, NULL);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(sched_process_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	struct execution_event *event = reserve(sizeof(*event));
	unsigned long start, bytes;

	if (!event) /* at once, or Linux 6.1 takes it for possible later on that there was room after all */
		return 0;
	start = BPF_CORE_READ(task, mm, arg_start);
	bytes = BPF_CORE_READ(task, mm, arg_end) - start;
	event->of.time_ns = bpf_ktime_get_ns();
	event->of.kind = EXECUTED;
	describe(&event->of.process, task);
	event->padding = 0;
	event->path[0] = 0;
	bpf_probe_read_kernel_str(event->path, PATH_BYTES, BPF_CORE_READ(bprm, interp));
	event->argument_bytes = bytes;
	if (bytes > ARGUMENT_BYTES)
		bytes = ARGUMENT_BYTES;
	barrier_var(bytes); /* or clang compares a copy, which the verifier does not know to be the same */
	if (bytes > ARGUMENT_BYTES || bpf_probe_read_user(event->arguments, bytes, (void *)start))
		event->argument_bytes = 0;
	submit(event);
	return 0;
}
