// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Packets of flows that are known, counted where they are tapped, so that they need not be copied to user space.
 *
 * The program is the filter of a packet socket (SO_ATTACH_BPF, socket(7)). It drops a packet that it has counted and lets
 * all others through. A flow is given up as soon as something happens to it that user space has to see: a SYN, FIN or
 * RST, or a packet on another interface or the other way.
 */
#include <stdbool.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

#define MOST_FLOWS 65536
#define LOOPBACK_IFINDEX 1 /* drivers/net/loopback.c asserts it */
#define VLAN_TAG_BYTES 4
#define IPV4_BYTES 20
#define IPV6_BYTES 40
#define UDP_BYTES 8
#define TCP_BYTES 20
#define TCP_WORDS_AT 12
#define TCP_FIN_SYN_RST 0x07

enum layer { WIRE, IP, PAYLOAD };
enum way { INOUT, IN, OUT };
enum over { ENDED = 1, ELSEWHERE, REMOVED /* by user space */ };

/* What user space knows a flow by; an IPv4 address is the first word, the others being zero. */
struct flow {
	__be32 source[4];
	__be32 destination[4];
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 version;
	__u16 unused;
};

/* One flow's sums, which only grow; `packets` and `bytes` take turns in two places, see `boundary`. */
struct tally {
	__u64 packets[2];
	__u64 bytes[2];
	__u64 first_ns; /* of what came since reading number `reading`, which is 0 for none */
	__u64 last_ns;
	__u32 ifindex;
	__u32 reading;
	__u8 outgoing;
	__u8 counts; /* user space has seen all packets that came before this flow was put into `flows` */
	__u8 over;   /* enum over */
	__u8 unused[5];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MOST_FLOWS);
	__type(key, struct flow);
	__type(value, __u32);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MOST_FLOWS);
	__type(key, __u32);
	__type(value, struct tally);
} tallies SEC(".maps");

/* This program, for one with the user's filter that comes before it: see classic_filter.py. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} following SEC(".maps");

/*
 * What user space sets and reads: the order is that of its own layout. `boundary` is a time, even, plus the place (0 or
 * 1) in which packets before it are counted; the other place is for those after it. So an interval's sums stay apart
 * from the next one's however late they are read.
 */
struct {
	__u64 boundary;
	__u64 over; /* how many flows were given up */
	__u32 reading;
	__u32 snaplen;
	__u8 layer;
	__u8 way;
	__u8 passes; /* count nothing any more */
} volatile shared;

struct headers {
	struct flow flow;
	__u32 ip_bytes;     /* 0: the rest of the frame (segmentation offload) */
	__u32 header_bytes; /* of IP and transport */
	bool ends;
};

static __always_inline bool load(struct __sk_buff *skb, __u32 offset, void *to, __u32 length)
{
	return !bpf_skb_load_bytes_relative(skb, offset, to, length, BPF_HDR_START_NET);
}

static __always_inline bool read_tcp(struct __sk_buff *skb, __u32 offset, struct headers *found)
{
	__u8 words_flags[2];

	if (!load(skb, offset + TCP_WORDS_AT, words_flags, sizeof(words_flags)))
		return false;
	__u32 header_bytes = (words_flags[0] >> 4) * 4;

	found->header_bytes += header_bytes < TCP_BYTES ? TCP_BYTES : header_bytes;
	found->ends = words_flags[1] & TCP_FIN_SYN_RST;
	return true;
}

static __always_inline bool read_transport(struct __sk_buff *skb, __u32 offset, struct headers *found)
{
	found->header_bytes = offset;
	if (found->flow.protocol == IPPROTO_TCP)
		return read_tcp(skb, offset, found);
	found->header_bytes += UDP_BYTES;
	return found->flow.protocol == IPPROTO_UDP;
}

static __always_inline bool read_ipv4(struct __sk_buff *skb, struct headers *found)
{
	struct {
		__u8 version_words, service;
		__be16 length, identification, fragment;
		__u8 hops, protocol;
		__be16 checksum;
		__be32 source, destination;
		__be16 source_port, destination_port;
	} ip;

	if (!load(skb, 0, &ip, sizeof(ip)))
		return false;
	/* Options and fragments are rare, so they are left to user space. */
	if (ip.version_words != 0x45 || (ip.fragment & bpf_htons(0x3fff)))
		return false;
	found->flow.source[0] = ip.source;
	found->flow.destination[0] = ip.destination;
	found->flow.source_port = ip.source_port;
	found->flow.destination_port = ip.destination_port;
	found->flow.protocol = ip.protocol;
	found->flow.version = 4;
	found->ip_bytes = bpf_ntohs(ip.length);
	return read_transport(skb, IPV4_BYTES, found);
}

static __always_inline bool read_ipv6(struct __sk_buff *skb, struct headers *found)
{
	struct {
		__be32 version_class_label;
		__be16 payload;
		__u8 next, hops;
		__be32 source[4], destination[4];
		__be16 source_port, destination_port;
	} ip;

	if (!load(skb, 0, &ip, sizeof(ip)))
		return false;
	if ((ip.version_class_label & bpf_htonl(0xf0000000)) != bpf_htonl(0x60000000))
		return false;
	__builtin_memcpy(found->flow.source, ip.source, sizeof(ip.source));
	__builtin_memcpy(found->flow.destination, ip.destination, sizeof(ip.destination));
	found->flow.source_port = ip.source_port;
	found->flow.destination_port = ip.destination_port;
	found->flow.protocol = ip.next;
	found->flow.version = 6;
	found->ip_bytes = ip.payload ? bpf_ntohs(ip.payload) + IPV6_BYTES : 0;
	return read_transport(skb, IPV6_BYTES, found);
}

static __always_inline __u32 size_of(struct __sk_buff *skb, struct headers *found)
{
	if (shared.layer == WIRE)
		return skb->len + (skb->vlan_present ? VLAN_TAG_BYTES : 0);
	__u32 ip_bytes = found->ip_bytes ? found->ip_bytes : skb->len - ETH_HLEN;

	if (shared.layer == IP)
		return ip_bytes;
	return ip_bytes > found->header_bytes ? ip_bytes - found->header_bytes : 0;
}

static __always_inline void add(struct tally *tally, __u32 size)
{
	__u64 now = bpf_ktime_get_ns(), boundary = shared.boundary;
	__u32 reading = shared.reading;
	__u32 place = (boundary ^ (now >= boundary)) & 1;

	if (tally->reading != reading) {
		tally->first_ns = now;
		tally->reading = reading;
	}
	tally->last_ns = now;
	__sync_fetch_and_add(&tally->packets[place], 1);
	__sync_fetch_and_add(&tally->bytes[place], size);
}

static __always_inline bool counted(struct __sk_buff *skb, bool outgoing)
{
	struct headers found = {};
	bool known = skb->protocol == bpf_htons(ETH_P_IP) ? read_ipv4(skb, &found) :
		     skb->protocol == bpf_htons(ETH_P_IPV6) ? read_ipv6(skb, &found) : false;

	if (!known)
		return false;
	__u32 *number = bpf_map_lookup_elem(&flows, &found.flow);

	if (!number)
		return false;
	struct tally *tally = bpf_map_lookup_elem(&tallies, number);

	if (!tally || tally->over)
		return false;
	if (found.ends || tally->ifindex != skb->ifindex || tally->outgoing != outgoing) {
		tally->over = found.ends ? ENDED : ELSEWHERE;
		__sync_fetch_and_add(&shared.over, 1);
		return false;
	}
	if (!tally->counts)
		return false;
	add(tally, size_of(skb, &found));
	return true;
}

SEC("socket")
int count(struct __sk_buff *skb)
{
	bool outgoing = skb->pkt_type == PACKET_OUTGOING;

	/* On loopback every packet is tapped twice. */
	if (outgoing && (skb->ifindex == LOOPBACK_IFINDEX || shared.way == IN))
		return 0;
	if (!outgoing && shared.way == OUT)
		return 0;
	if (skb->pkt_type != PACKET_OTHERHOST && !shared.passes && counted(skb, outgoing))
		return 0;
	return shared.snaplen;
}
