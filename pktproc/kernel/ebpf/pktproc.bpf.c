// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Who uses which socket, told before the packet leaves or moments after it came.
 *
 * What is told is told once: a socket's sender and receiver when they change, a flow when it begins. In a softirq the
 * current task is a bystander, so no program takes a process from there.
 */
#include "flows.h"
#include "lives.h"

char LICENSE[] SEC("license") = "GPL";

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
