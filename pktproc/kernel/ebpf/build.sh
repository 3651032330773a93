#!/bin/sh
# Compile pktproc.bpf.c into the object that stands beside it; takes clang, llvm and libbpf-dev (Debian 12: clang 14).
# With an argument, write to that file instead. The object does not depend on where the source lies.
set -eu
cd "$(dirname "$0")"
object=${1:-pktproc.bpf.o}
clang -g -O2 -Wall -Wextra -Werror -Wno-unused-parameter -target bpf -mcpu=v3 \
    -I"/usr/include/$(uname -m)-linux-gnu" -ffile-prefix-map="$PWD"=. -c pktproc.bpf.c -o "$object"
llvm-strip -g "$object"
