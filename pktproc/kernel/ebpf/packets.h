/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the headers of an IP packet tell: its ends, and what a TCP segment is to its sender. */
#pragma once

#include "users.h"

#define MOST_EXTENSIONS 4 /* IPv6 extension headers that are passed over */

enum { ECHO_REPLY = 0, ECHO_REQUEST = 8, ECHO_REQUEST_V6 = 128, ECHO_REPLY_V6 = 129 };
enum { TCP_FLAG_FIN = 1, TCP_FLAG_SYN = 2, TCP_FLAG_ACK = 16 };

struct flow_key {
	__u64 cookie;
	struct ends ends;
	__u32 arrives;
};

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
enum segment { NONE, BARE, OPENS, ANSWERS, CARRIES };

/*
 * Say what segment of the socket with this port a packet is. Where its headers cannot be seen at once, it may carry data;
 * what has another port was made up by the user of a raw socket, or the kernel sends it without a socket of its own. A
 * socket that is closed has no port any more.
 */
static __always_inline enum segment segment_of(const struct __sk_buff *skb, __u32 port)
{
	const __u8 *start = (void *)(long)skb->data, *end = (void *)(long)skb->data_end, *segment;
	__u32 headers;

	if (start + sizeof(struct v6_header) > end)
		return CARRIES;
	if (start[0] >> 4 == 4) {
		if (start[9] != PROTOCOL_TCP)
			return NONE;
		headers = (start[0] & 15) * 4;
	} else if (start[6] == PROTOCOL_TCP) {
		headers = sizeof(struct v6_header);
	} else {
		return CARRIES;
	}
	segment = start + headers;
	if (segment + 20 > end)
		return CARRIES;
	if (port && bpf_ntohs(*(const __be16 *)segment) != port)
		return NONE;
	headers += (segment[12] >> 4) * 4;
	if (segment[13] & TCP_FLAG_SYN)
		return segment[13] & TCP_FLAG_ACK ? ANSWERS : OPENS;
	return skb->len > headers && !(segment[13] & TCP_FLAG_FIN) ? CARRIES : BARE;
}
