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
#define MOST_FLOWS (1 << 16)
#define OF_PACKET_SOCKETS (1ULL << 63) /* with a pid in the place of a cookie */
#define MOST_EXTENSIONS 4      /* IPv6 extension headers that are passed over */

enum { PROTOCOL_ICMP = 1, PROTOCOL_TCP = 6, PROTOCOL_UDP = 17, PROTOCOL_DCCP = 33, PROTOCOL_ICMPV6 = 58 };
enum { PROTOCOL_SCTP = 132, PROTOCOL_UDPLITE = 136 };
enum { ECHO_REPLY = 0, ECHO_REQUEST = 8, ECHO_REQUEST_V6 = 128, ECHO_REPLY_V6 = 129 };
enum { TCP_FLAG_FIN = 1, TCP_FLAG_SYN = 2 };
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
 * The present users of a socket, by pid, 0 for none yet. Who does the one is taken to do the other as well, until another
 * process does it. What happens to a closed socket is told no more.
 */
struct users {
	__u32 sender;
	__u32 receiver;
	__u64 received_ns;
	__u64 closed;
};

struct socket_key {
	__u64 cookie;
	__u64 generation;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MOST_SOCKETS);
	__type(key, struct socket_key);
	__type(value, struct users);
} sockets SEC(".maps");

struct flow_key {
	__u64 cookie;
	__u64 generation;
	struct ends ends;
	__u32 arrives;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MOST_FLOWS);
	__type(key, struct flow_key);
	__type(value, __u32); /* pid of the sender, 0 where none is known */
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

static __always_inline void map_v4(__u8 *to, __be32 address)
{
	__builtin_memset(to, 0, 10);
	to[10] = to[11] = 0xff;
	__builtin_memcpy(to + 12, &address, 4);
}

/* The ends that a socket has by itself; `sk` is one that the verifier knows. */
static __always_inline void own_ends(struct ends *ends, struct sock *sk)
{
	ends->netns = sk->__sk_common.skc_net.net->ns.inum;
	ends->protocol = sk->sk_protocol;
	ends->local_port = sk->__sk_common.skc_num;
	ends->remote_port = bpf_ntohs(sk->__sk_common.skc_dport);
	if (sk->__sk_common.skc_family == AF_INET6) {
		__builtin_memcpy(ends->local, &sk->__sk_common.skc_v6_rcv_saddr, 16);
		__builtin_memcpy(ends->remote, &sk->__sk_common.skc_v6_daddr, 16);
	} else {
		map_v4(ends->local, sk->__sk_common.skc_rcv_saddr);
		map_v4(ends->remote, sk->__sk_common.skc_daddr);
	}
}

/* Tell something of a socket; with `process` also who is behind it, which is then the current task. */
static __always_inline bool tell(enum kind kind, __u64 cookie, const struct ends *ends, __u64 previous_ns, bool process)
{
	struct socket_event *event = reserve(sizeof(*event));

	if (!event)
		return false;
	event->time_ns = bpf_ktime_get_ns();
	event->kind = kind;
	event->cookie = cookie;
	event->previous_ns = previous_ns;
	event->ends = *ends;
	if (process)
		describe(&event->process, bpf_get_current_task_btf());
	else
		__builtin_memset(&event->process, 0, sizeof(event->process));
	submit(event);
	return true;
}

static __always_inline bool tell_of(enum kind kind, __u64 cookie, struct sock *sk, __u64 previous_ns, bool process)
{
	struct ends ends = {};

	own_ends(&ends, sk);
	return tell(kind, cookie, &ends, previous_ns, process);
}

static __always_inline struct users *users_of(__u64 cookie)
{
	struct socket_key key = {.cookie = cookie, .generation = shared.generation};

	return bpf_map_lookup_elem(&sockets, &key);
}

static __always_inline void remember(__u64 cookie, const struct users *users)
{
	struct socket_key key = {.cookie = cookie, .generation = shared.generation};

	bpf_map_update_elem(&sockets, &key, users, BPF_ANY);
}

static __always_inline bool sends_already(const struct users *known, __u32 pid)
{
	return known && (known->closed || known->sender == pid || (!known->sender && known->receiver == pid));
}

static __always_inline bool receives_already(const struct users *known, __u32 pid)
{
	return known && (known->closed || known->receiver == pid || (!known->receiver && known->sender == pid));
}

/* Remember a sender that was told. */
static __always_inline void note_sender(__u64 cookie, __u32 pid)
{
	struct users *known = users_of(cookie), fresh = {.sender = pid};

	if (known)
		known->sender = pid;
	else
		remember(cookie, &fresh);
}

static __always_inline void receives(struct sock *sk, __u64 cookie)
{
	struct users *known = users_of(cookie), fresh = {};
	__u32 pid = current_pid();

	if (!receives_already(known, pid) && !tell_of(RECEIVED, cookie, sk, known ? known->received_ns : 0, true))
		return;
	if (known) {
		known->receiver = pid;
		known->received_ns = bpf_ktime_get_ns();
	} else {
		fresh.receiver = pid;
		fresh.received_ns = bpf_ktime_get_ns();
		remember(cookie, &fresh);
	}
}

static __always_inline bool is_inet(struct sock *sk)
{
	return sk->__sk_common.skc_family == AF_INET || sk->__sk_common.skc_family == AF_INET6;
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(sock_send_length, struct sock *sk, int returned, int flags)
{
	__u32 pid = current_pid();
	__u64 cookie;

	if (returned < 0 || !is_inet(sk))
		return 0;
	cookie = bpf_get_socket_cookie(sk);
	if (!sends_already(users_of(cookie), pid) && tell_of(SENT, cookie, sk, 0, true))
		note_sender(cookie, pid);
	return 0;
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(sock_recv_length, struct sock *sk, int returned, int flags)
{
	if (returned >= 0 && is_inet(sk))
		receives(sk, bpf_get_socket_cookie(sk));
	return 0;
}

/* Also called for splice(2) out of a socket, and on kernels that do not have sock_recv_length. */
SEC("tp_btf/tcp_rcv_space_adjust")
int BPF_PROG(tcp_rcv_space_adjust, struct sock *sk)
{
	if (sk->sk_lock.owned)
		receives(sk, bpf_get_socket_cookie(sk));
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(inet_sock_set_state, struct sock *sk, int before, int after)
{
	__u64 cookie;

	if (after != TCP_LISTEN && after != TCP_SYN_SENT && after != TCP_ESTABLISHED)
		return 0;
	if (sk->sk_protocol != PROTOCOL_TCP)
		return 0;
	cookie = bpf_get_socket_cookie(sk);
	if (after == TCP_LISTEN)
		tell_of(LISTENED, cookie, sk, 0, true);
	else if (after == TCP_SYN_SENT && sk->__sk_common.skc_num)
		tell_of(CONNECTED, cookie, sk, 0, true);
	else if (after == TCP_ESTABLISHED && before != TCP_SYN_SENT)
		tell_of(ACCEPTABLE, cookie, sk, 0, false);
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
	tell(CREATED, bpf_get_socket_cookie(ctx), &ends, 0, true);
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
	__u64 cookie = bpf_get_socket_cookie(ctx);
	struct users *known = users_of(cookie), fresh = {.closed = 1};
	struct ends ends = {};

	if (known) {
		known->closed = 1;
		tell(CLOSED, cookie, &ends, 0, false);
	} else if (ctx->protocol == PROTOCOL_TCP && (ctx->state == TCP_ESTABLISHED || ctx->state == TCP_CLOSE_WAIT)) {
		/* accepted and closed without a byte */
		probe_ends(&ends, launder(ctx));
		tell(RECEIVED, cookie, &ends, 0, true);
		remember(cookie, &fresh);
	}
	return 1;
}

/* What of a packet's transport header tells its flow. */
struct transport {
	__be16 source;
	__be16 destination;
	__u8 rest[10];
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

/* Fill in the ports; of an ICMP echo the id is the port of who asks. Return whether the flow can be a process's. */
static __always_inline bool read_ports(struct flow_key *flow, const struct transport *header)
{
	if (has_ports(flow->ends.protocol)) {
		flow->ends.local_port = bpf_ntohs(flow->arrives ? header->destination : header->source);
		flow->ends.remote_port = bpf_ntohs(flow->arrives ? header->source : header->destination);
	} else if (flow->ends.protocol == PROTOCOL_ICMP || flow->ends.protocol == PROTOCOL_ICMPV6) {
		bool v6 = flow->ends.protocol == PROTOCOL_ICMPV6;
		__u8 type = *(const __u8 *)header;
		__u8 wanted = flow->arrives ? (v6 ? ECHO_REPLY_V6 : ECHO_REPLY) : (v6 ? ECHO_REQUEST_V6 : ECHO_REQUEST);

		if (type == wanted)
			flow->ends.local_port = bpf_ntohs(*(const __be16 *)header->rest);
	}
	return true;
}

static __always_inline bool read_flow(const struct packet *packet, struct flow_key *flow, struct transport *header)
{
	int offset = read_network(packet, flow);

	if (offset < 0)
		return false;
	if (load(packet, offset, header, sizeof(*header)) && /* a short one has at least its ports */
	    load(packet, offset, header, 8) && has_ports(flow->ends.protocol))
		return false;
	return read_ports(flow, header);
}

/* Say whether a TCP segment opens a connection or carries data, so that a process sends it and not the kernel. */
static __always_inline bool is_of_process(const struct __sk_buff *skb, const struct transport *header)
{
	__u8 flags = header->rest[9];
	__u32 headers = (header->rest[8] >> 4) * 4 + (skb->protocol == bpf_htons(0x0800) ? 20 : 40);

	return flags & TCP_FLAG_SYN || (skb->len > headers && !(flags & TCP_FLAG_FIN));
}

static __always_inline void tcp_leaves(struct __sk_buff *skb, struct sock *sk)
{
	struct flow_key flow = {.cookie = bpf_get_socket_cookie(skb)};
	struct packet packet = {.skb = skb};
	struct transport header = {};
	__u32 pid = current_pid();

	if (!flow.cookie || sends_already(users_of(flow.cookie), pid))
		return;
	if (!read_flow(&packet, &flow, &header) || !is_of_process(skb, &header))
		return;
	flow.ends.netns = sk->__sk_common.skc_net.net->ns.inum;
	if (tell(SENT, flow.cookie, &flow.ends, 0, true))
		note_sender(flow.cookie, pid);
}

/* `sk` can only be probed; `packets` says that it is a packet socket, which no softirq sends from. */
static __always_inline void other_leaves(const struct packet *packet, struct sock *sk, __u64 cookie, bool packets)
{
	struct flow_key flow = {.cookie = cookie, .generation = shared.generation};
	struct transport header = {};
	__u32 pid = current_pid(), *known;

	if (!flow.cookie || !read_flow(packet, &flow, &header))
		return;
	known = bpf_map_lookup_elem(&flows, &flow);
	if ((known && *known == pid) || (!packets && !is_of_task(sk)))
		return;
	bpf_map_update_elem(&flows, &flow, &pid, BPF_ANY);
	flow.ends.netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	if (tell(SENT, flow.cookie, &flow.ends, 0, true)) {
		note_sender(flow.cookie, pid);
	} else {
		flow.ends.netns = 0;
		bpf_map_delete_elem(&flows, &flow);
	}
}

SEC("cgroup_skb/egress")
int egress(struct __sk_buff *skb)
{
	struct packet packet = {.skb = skb};
	struct bpf_sock *socket = skb->sk;
	struct tcp_sock *tcp;

	if (!socket)
		return 1;
	tcp = bpf_skc_to_tcp_sock(socket);
	if (!tcp)
		other_leaves(&packet, launder(socket), bpf_get_socket_cookie(skb), false);
	else if (((struct sock *)tcp)->sk_lock.owned)
		tcp_leaves(skb, (struct sock *)tcp);
	return 1;
}

/* What packet sockets send does not pass cgroups. Those of a process count as one: the verifier refuses their cookies. */
SEC("tp_btf/net_dev_queue")
int BPF_PROG(net_dev_queue, struct sk_buff *skb)
{
	struct sock *sk = skb->sk;
	struct packet packet = {};

	if (!sk || sk->__sk_common.skc_family != AF_PACKET)
		return 0;
	packet.start = skb->head + skb->network_header;
	other_leaves(&packet, launder(sk), OF_PACKET_SOCKETS | current_pid(), true);
	return 0;
}

SEC("cgroup_skb/ingress")
int ingress(struct __sk_buff *skb)
{
	struct flow_key flow = {.generation = shared.generation, .arrives = 1};
	struct packet packet = {.skb = skb};
	struct bpf_sock *socket = skb->sk;
	struct transport header = {};
	__u32 nobody = 0;

	if (!socket || bpf_skc_to_tcp_sock(socket))
		return 1;
	flow.cookie = bpf_get_socket_cookie(skb);
	if (!flow.cookie || !read_flow(&packet, &flow, &header) || flow.ends.protocol == PROTOCOL_TCP)
		return 1;
	if (bpf_map_lookup_elem(&flows, &flow))
		return 1;
	bpf_map_update_elem(&flows, &flow, &nobody, BPF_ANY);
	flow.ends.netns = BPF_CORE_READ((struct sock *)launder(socket), __sk_common.skc_net.net, ns.inum);
	if (!tell(ARRIVES, flow.cookie, &flow.ends, 0, false)) {
		flow.ends.netns = 0;
		bpf_map_delete_elem(&flows, &flow);
	}
	return 1;
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
	unsigned long start = BPF_CORE_READ(task, mm, arg_start);
	unsigned long bytes = BPF_CORE_READ(task, mm, arg_end) - start;

	if (!event)
		return 0;
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
