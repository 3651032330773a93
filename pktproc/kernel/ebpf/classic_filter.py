"""Classic BPF programs, as libpcap compiles them, rewritten as eBPF, so that another program can follow.

A socket has one filter: classic or eBPF. The kernel rewrites classic programs itself (net/core/filter.c,
bpf_convert_filter), but does not let any of its own come after them. The registers are those that the kernel takes:
A is R0, where loads from the packet put what they found, X is R7; R6 has the packet and R8 keeps A for a moment.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from pktproc.errors import Unsupported

Classic = tuple[int, int, int, int]
"""Code, jumps if true and false, and k: struct sock_filter (linux/filter.h)."""

# Of linux/bpf_common.h and linux/bpf.h.
_LD, _LDX, _ST, _STX, _ALU, _JMP, _RET, _MISC = range(8)
_JMP32, _ALU64 = 6, 7
_IMM, _ABS, _IND, _MEM, _LEN, _MSH = 0x00, 0x20, 0x40, 0x60, 0x80, 0xA0
_W, _B, _DW = 0x00, 0x10, 0x18
_X = 0x08
_DIV, _AND, _LSH, _MOD, _MOV, _NEG, _XOR, _END = 0x30, 0x50, 0x60, 0x90, 0xB0, 0x80, 0xA0, 0xD0
_ADD, _SUB, _MUL, _OR, _RSH = 0x00, 0x10, 0x20, 0x40, 0x70
_JA, _JEQ, _JGT, _JGE, _JSET, _JNE, _CALL, _EXIT = 0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x80, 0x90
_TAX, _TXA = 0x00, 0x80
_TAIL_CALL = 12
_PSEUDO_MAP_FD = 1
_A, _ARGUMENT, _X_REGISTER, _PACKET, _KEPT, _STACK = 0, 1, 7, 6, 8, 10
_WORDS = 16

# Where struct __sk_buff (linux/bpf.h) has what classic programs ask for by these offsets (linux/filter.h, SKF_AD_*).
_ANCILLARY_AT = 0xFFFFF000
_LENGTH = 0
_PROTOCOL, _PKTTYPE, _IFINDEX, _MARK, _VLAN_TAG, _VLAN_TAG_PRESENT, _VLAN_TPID = 0, 4, 8, 20, 44, 48, 60
_ANCILLARY = {
    _PROTOCOL: 16,
    _PKTTYPE: 4,
    _IFINDEX: 40,
    _MARK: 8,
    _VLAN_TAG: 24,
    _VLAN_TAG_PRESENT: 20,
    _VLAN_TPID: 28,
}
_IN_NETWORK_ORDER = frozenset({_PROTOCOL, _VLAN_TPID})
_INSTRUCTION = struct.Struct("=BBhi")


class _Code:
    """eBPF instructions, with jumps to classic ones that are yet to be written."""

    def __init__(self) -> None:
        self.instructions: list[tuple[int, int, int, int, int]] = []
        self.jumps: list[tuple[int, int]] = []

    def add(self, code: int, to: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> None:
        self.instructions.append((code, to, source, offset, value))

    def jump(self, code: int, target: int, to: int = 0, source: int = 0, value: int = 0) -> None:
        """Jump to where a classic instruction begins."""
        self.jumps.append((len(self.instructions), target))
        self.add(code, to, source, 0, value)

    def packed(self, starts: Sequence[int]) -> bytes:
        for at, target in self.jumps:
            if target >= len(starts):
                raise Unsupported("a filter that jumps backwards")
            code, to, source, _, value = self.instructions[at]
            self.instructions[at] = code, to, source, starts[target] - at - 1, value
        return b"".join(
            _INSTRUCTION.pack(code, source << 4 | to, offset, (value & 0xFFFFFFFF) - (value >> 31 & 1) * (1 << 32))
            for code, to, source, offset, value in self.instructions
        )


def followed(program: Sequence[Classic], programs: int, snaplen: int) -> bytes:
    """Return eBPF code that hands a packet which a classic program takes to the first of an array of programs.

    `programs` is the descriptor of that map (BPF_MAP_TYPE_PROG_ARRAY). Without a program there, the packet is taken
    with `snaplen` bytes. Raise `Unsupported` for what cannot be rewritten.
    """
    code = _Code()
    code.add(_ALU64 | _MOV | _X, _PACKET, _ARGUMENT)
    for register in (_A, _X_REGISTER):
        code.add(_ALU | _MOV, register)
    for word in sorted({k for each, _, _, k in program if _uses_memory(each)}):
        code.add(_ST | _MEM | _W, _STACK, offset=_slot(word))
    starts = []
    for at, instruction in enumerate(program):
        starts.append(len(code.instructions))
        _rewrite(code, at, instruction, len(program))
    starts.append(len(code.instructions))  # taken
    code.add(_ALU64 | _MOV | _X, 1, _PACKET)
    code.add(_LD | _DW | _IMM, 2, _PSEUDO_MAP_FD, value=programs)
    code.add(0)
    code.add(_ALU | _MOV, 3)
    code.add(_JMP | _CALL, value=_TAIL_CALL)
    code.add(_ALU | _MOV, _A, value=snaplen)
    code.add(_JMP | _EXIT)
    starts.append(len(code.instructions))  # refused
    code.add(_ALU | _MOV, _A)
    code.add(_JMP | _EXIT)
    return code.packed(starts)


def _uses_memory(code: int) -> bool:
    kind = code & 0x07
    return kind in (_ST, _STX) or (kind in (_LD, _LDX) and code & 0xE0 == _MEM)


def _slot(word: int) -> int:
    if word >= _WORDS:
        raise Unsupported(f"a filter with {word} words of memory")
    return -4 * (word + 1)


def _rewrite(code: _Code, at: int, instruction: Classic, taken: int) -> None:
    """Rewrite one instruction; `taken` is the number of the place to jump to with a packet that is wanted."""
    kind = instruction[0] & 0x07
    if kind in (_ST, _STX):
        code.add(_STX | _MEM | _W, _STACK, _A if kind == _ST else _X_REGISTER, _slot(instruction[3]))
    elif kind == _RET:
        _end(code, instruction, taken)
    elif kind == _JMP:
        _jump(code, at, instruction)
    else:
        _REWRITERS[kind](code, instruction, taken)


def _load(code: _Code, instruction: Classic, _: int) -> None:
    operation, _, _, k = instruction
    mode, size = operation & 0xE0, operation & 0x18
    if mode == _ABS and k >= _ANCILLARY_AT:
        _load_ancillary(code, k - _ANCILLARY_AT)
    elif mode == _ABS:
        code.add(_LD | _ABS | size, value=k)
    elif mode == _IND:
        code.add(_LD | _IND | size, source=_X_REGISTER, value=k)
    else:
        _load_word(code, mode, _A, k)


def _load_x(code: _Code, instruction: Classic, _: int) -> None:
    operation, _, _, k = instruction
    if operation & 0xE0 != _MSH:
        _load_word(code, operation & 0xE0, _X_REGISTER, k)
        return
    code.add(_ALU | _MOV | _X, _KEPT, _A)
    code.add(_LD | _ABS | _B, value=k)
    code.add(_ALU | _AND, _A, value=0x0F)
    code.add(_ALU | _LSH, _A, value=2)
    code.add(_ALU | _MOV | _X, _X_REGISTER, _A)
    code.add(_ALU | _MOV | _X, _A, _KEPT)


def _load_word(code: _Code, mode: int, register: int, k: int) -> None:
    if mode == _IMM:
        code.add(_ALU | _MOV, register, value=k)
    elif mode == _MEM:
        code.add(_LDX | _MEM | _W, register, _STACK, _slot(k))
    elif mode == _LEN:
        code.add(_LDX | _MEM | _W, register, _PACKET, _LENGTH)
    else:
        raise Unsupported(f"a filter that loads by mode {mode:#x}")


def _load_ancillary(code: _Code, which: int) -> None:
    if which not in _ANCILLARY:
        raise Unsupported(f"a filter that loads ancillary data {which}")
    code.add(_LDX | _MEM | _W, _A, _PACKET, _ANCILLARY[which])
    if which in _IN_NETWORK_ORDER:
        code.add(_ALU | _END | _X, _A, value=16)


def _calculate(code: _Code, instruction: Classic, taken: int) -> None:
    operation, _, _, k = instruction
    by_x, action = operation & _X, operation & 0xF0
    if action not in (_ADD, _SUB, _MUL, _DIV, _OR, _AND, _LSH, _RSH, _NEG, _MOD, _XOR):
        raise Unsupported(f"a filter that calculates by {action:#x}")
    if action in (_DIV, _MOD) and by_x:  # a division by zero ends the program
        code.jump(_JMP32 | _JEQ, taken + 1, _X_REGISTER)
    if action == _NEG:
        code.add(_ALU | _NEG, _A)
    elif by_x:
        code.add(_ALU | action | _X, _A, _X_REGISTER)
    else:
        code.add(_ALU | action, _A, value=k)


def _jump(code: _Code, at: int, instruction: Classic) -> None:
    operation, if_true, if_false, k = instruction
    action = operation & 0xF0
    if action == _JA:
        code.jump(_JMP | _JA, at + 1 + k)
        return
    if action not in (_JEQ, _JGT, _JGE, _JSET):
        raise Unsupported(f"a filter that jumps by {action:#x}")
    by_x = operation & _X
    code.jump(_JMP32 | action | by_x, at + 1 + if_true, _A, _X_REGISTER if by_x else 0, 0 if by_x else k)
    code.jump(_JMP | _JA, at + 1 + if_false)


def _end(code: _Code, instruction: Classic, taken: int) -> None:
    operation, _, _, k = instruction
    if operation & 0x18 == 0x10:  # RET A
        code.jump(_JMP32 | _JNE, taken, _A)
        code.jump(_JMP | _JA, taken + 1)
    else:
        code.jump(_JMP | _JA, taken if k else taken + 1)


def _move(code: _Code, instruction: Classic, _: int) -> None:
    if instruction[0] & 0xF8 == _TAX:
        code.add(_ALU | _MOV | _X, _X_REGISTER, _A)
    elif instruction[0] & 0xF8 == _TXA:
        code.add(_ALU | _MOV | _X, _A, _X_REGISTER)
    else:
        raise Unsupported(f"a filter with the instruction {instruction[0]:#x}")


_REWRITERS: dict[int, Callable[[_Code, Classic, int], None]] = {
    _LD: _load, _LDX: _load_x, _ALU: _calculate, _MISC: _move
}  # fmt: skip
