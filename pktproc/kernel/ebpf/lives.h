/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The lives of processes, and the programs that they run. */
#pragma once

#include "telling.h"

/* Tell of a process; `comm` is the name that it will have, NULL if that is the present one. */
static __always_inline void tell_life(enum kind kind, struct task_struct *task, const char *comm)
{
	struct telling telling = begin(kind, 0, 0);

	if (!telling.event)
		return;
	describe(telling.event, task);
	if (comm)
		bpf_probe_read_kernel_str(telling.event->process.comm, COMM_BYTES, comm);
	end(telling);
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

static __always_inline void copy_program(struct execution *execution, struct task_struct *task, struct linux_binprm *bprm)
{
	unsigned long start = BPF_CORE_READ(task, mm, arg_start);
	unsigned long bytes = BPF_CORE_READ(task, mm, arg_end) - start;

	execution->path[0] = 0;
	bpf_probe_read_kernel_str(execution->path, PATH_BYTES, BPF_CORE_READ(bprm, interp));
	execution->argument_bytes = bytes;
	if (bytes > ARGUMENT_BYTES)
		bytes = ARGUMENT_BYTES;
	barrier_var(bytes); /* or clang compares a copy, which the verifier does not know to be the same */
	if (bytes > ARGUMENT_BYTES || bpf_probe_read_user(execution->arguments, bytes, (void *)start))
		execution->argument_bytes = 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(sched_process_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	__u64 number = __sync_fetch_and_add(&shared.executed, 1);
	__u32 place = number % MOST_EXECUTIONS;
	struct execution *execution = bpf_map_lookup_elem(&executions, &place);
	struct telling telling;

	if (!execution)
		return 0;
	copy_program(execution, task, bprm);
	telling = begin(EXECUTED, number, 0);
	if (!telling.event)
		return 0;
	describe(telling.event, task);
	end(telling);
	return 0;
}
