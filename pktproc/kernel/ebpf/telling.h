/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How the programs tell what they see: in a ring that the reader maps.
 *
 * Whoever tells takes the next place by counting on, and writes the number of the event last. Nothing is locked and no
 * helper is called: the kernel's own ring buffer costs three times as much. The reader takes note if it was overtaken.
 */
#pragma once

#include "kernel_types.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "events.h"

#define MOST_EVENTS (1 << 17) /* the ring is emptied at least five times a second */
#define MOST_EXECUTIONS (1 << 12)

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MOST_EVENTS);
	__type(key, __u32);
	__type(value, struct event);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MOST_EXECUTIONS);
	__type(key, __u32);
	__type(value, struct execution);
} executions SEC(".maps");

/* Events and executions are counted here. The reader raises `generation` to have everything told anew. */
struct {
	__u64 told;
	__u64 executed;
	__u64 generation;
	/* These take no room; they are here so that the object's type information has them. */
	enum kind kinds[0];
	struct holding holdings[0];
} shared SEC(".bss");

/* An event that is being written, and its number. */
struct telling {
	struct event *event;
	__u32 sequence;
};

/* Turn a pointer that the verifier follows into one that can only be read by probing. */
static __always_inline void *launder(void *pointer)
{
	void *plain = NULL;

	bpf_probe_read_kernel(&plain, sizeof(plain), &pointer);
	return plain;
}

static __always_inline __u32 current_pid(void)
{
	return bpf_get_current_task_btf()->tgid;
}

/*
 * Begin to tell something that happens at `time_ns`, or now if that is 0: to read the clock costs as much as all the rest.
 * The event is never NULL, but the verifier wants it tested.
 */
static __always_inline struct telling begin(enum kind kind, __u64 cookie, __u64 time_ns)
{
	__u64 before = __sync_fetch_and_add(&shared.told, 1);
	__u32 place = before % MOST_EVENTS;
	struct telling telling = {.event = bpf_map_lookup_elem(&ring, &place), .sequence = before + 1};

	if (telling.event) {
		telling.event->kind = kind;
		telling.event->named = 0;
		telling.event->time_ns = time_ns ? time_ns : bpf_ktime_get_ns();
		telling.event->cookie = cookie;
		telling.event->previous_ns = 0;
	}
	return telling;
}

static __always_inline void end(struct telling telling)
{
	__sync_lock_test_and_set(&telling.event->sequence, telling.sequence); /* behind all that was written before */
}

/* Write a process into an event. */
static __always_inline void describe(struct event *event, struct task_struct *task)
{
	struct process_facts *facts = &event->process;
	struct task_struct *leader = task->group_leader;

	event->named = 1;
	facts->pid = task->tgid;
	facts->ppid = leader->real_parent->tgid;
	facts->start_ns = leader->start_boottime;
	facts->uid = leader->real_cred->euid.val;
	facts->cgroup = leader->cgroups->dfl_cgrp->kn->id;
	facts->kernel = !!(task->flags & PF_KTHREAD);
	__builtin_memcpy(facts->comm, leader->comm, COMM_BYTES);
}

/* End an event of which the current task is the process. */
static __always_inline void end_naming(struct telling telling)
{
	describe(telling.event, bpf_get_current_task_btf());
	end(telling);
}
