/*
 * What a kernel with SCTP and vsock would answer, written down by the structures of its own headers: each argument names
 * a message, which goes to standard output with its netlink header, or the body of a request.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/vm_sockets_diag.h>

enum { LISTENING = 10, ASSOCIATION_ESTABLISHED = 3, ASSOCIATION_SHUTDOWN_RECEIVED = 6, T3_RTX = 4 };

static char buffer[4096];
static struct nlmsghdr *const header = (void *)buffer;

static void *begin(size_t bytes)
{
	memset(buffer, 0, sizeof(buffer));
	header->nlmsg_type = SOCK_DIAG_BY_FAMILY;
	header->nlmsg_len = NLMSG_LENGTH(bytes);
	return NLMSG_DATA(header);
}

static void *attribute(int type, size_t bytes)
{
	struct nlattr *added = (void *)(buffer + NLMSG_ALIGN(header->nlmsg_len));

	added->nla_type = type;
	added->nla_len = NLA_HDRLEN + bytes;
	header->nlmsg_len = NLMSG_ALIGN(header->nlmsg_len) + NLA_ALIGN(added->nla_len);
	return (char *)added + NLA_HDRLEN;
}

static void end(void)
{
	fwrite(buffer, 1, NLMSG_ALIGN(header->nlmsg_len), stdout);
}

static void put_v4(struct sockaddr_storage *place, const char *address)
{
	place->ss_family = AF_INET;
	inet_pton(AF_INET, address, &((struct sockaddr_in *)place)->sin_addr);
}

static void put_v6(struct sockaddr_storage *place, const char *address)
{
	place->ss_family = AF_INET6;
	inet_pton(AF_INET6, address, &((struct sockaddr_in6 *)place)->sin6_addr);
}

/* As inet_sctp_diag_fill does it: a socket, or an association of the same socket. */
static void sctp(int state, const char *remote, const char *other)
{
	struct inet_diag_msg *message = begin(sizeof(*message));
	struct sockaddr_storage *addresses;

	message->idiag_family = AF_INET;
	message->idiag_state = state;
	message->id.idiag_sport = htons(5000);
	inet_pton(AF_INET, "10.77.0.1", message->id.idiag_src);
	message->id.idiag_cookie[0] = 0x99;
	message->id.idiag_cookie[1] = 1;
	message->idiag_rqueue = 11;
	message->idiag_wqueue = 12;
	message->idiag_uid = 1000;
	message->idiag_inode = 4242;
	*(unsigned char *)attribute(INET_DIAG_SHUTDOWN, 1) = 0;
	addresses = attribute(INET_DIAG_LOCALS, 2 * sizeof(*addresses));
	put_v4(addresses, "10.77.0.1");
	put_v6(addresses + 1, "fd77::1");
	if (remote) {
		message->id.idiag_dport = htons(6000);
		inet_pton(AF_INET, remote, message->id.idiag_dst);
		message->idiag_timer = T3_RTX;
		message->idiag_retrans = 2;
		message->idiag_expires = 300;
		addresses = attribute(INET_DIAG_PEERS, 2 * sizeof(*addresses));
		put_v4(addresses, remote);
		put_v4(addresses + 1, other);
	}
	end();
}

static void vsock(int type, int state, unsigned int remote)
{
	struct vsock_diag_msg *message = begin(sizeof(*message));

	message->vdiag_family = AF_VSOCK;
	message->vdiag_type = type;
	message->vdiag_state = state;
	message->vdiag_shutdown = 1;
	message->vdiag_src_cid = 3;
	message->vdiag_src_port = 1024;
	message->vdiag_dst_cid = remote;
	message->vdiag_dst_port = remote;
	message->vdiag_ino = 4343;
	message->vdiag_cookie[0] = 0x77;
	message->vdiag_cookie[1] = 2;
	end();
}

static void vsock_request(void)
{
	struct vsock_diag_req request = {.sdiag_family = AF_VSOCK, .vdiag_states = 1 << LISTENING};

	fwrite(&request, 1, sizeof(request), stdout);
}

static void sctp_request(void)
{
	struct inet_diag_req_v2 request = {.sdiag_family = AF_INET, .sdiag_protocol = IPPROTO_SCTP};

	request.idiag_states = 0xfff;
	request.id.idiag_cookie[0] = request.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
	fwrite(&request, 1, sizeof(request), stdout);
}

int main(int count, char **names)
{
	for (int at = 1; at < count; at++) {
		if (!strcmp(names[at], "sctp-socket"))
			sctp(LISTENING, NULL, NULL);
		if (!strcmp(names[at], "sctp-association"))
			sctp(ASSOCIATION_ESTABLISHED, "10.77.0.2", "10.77.1.2");
		if (!strcmp(names[at], "sctp-ending"))
			sctp(ASSOCIATION_SHUTDOWN_RECEIVED, "10.77.0.3", "10.77.1.3");
		if (!strcmp(names[at], "vsock-listener"))
			vsock(SOCK_STREAM, LISTENING, 0xffffffff);
		if (!strcmp(names[at], "vsock-packets"))
			vsock(SOCK_SEQPACKET, 1, 2);
		if (!strcmp(names[at], "vsock-request"))
			vsock_request();
		if (!strcmp(names[at], "sctp-request"))
			sctp_request();
	}
	return 0;
}
