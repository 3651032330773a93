#!/bin/sh
# Compile each *.bpf.c into the object that stands beside it; takes clang, llvm and libbpf-dev (Debian 12: clang 14).
# With an argument, write into that folder instead. The objects do not depend on where the sources lie.
set -eu
cd "$(dirname "$0")"
folder=${1:-.}
for source in *.bpf.c; do
    object=$folder/${source%.c}.o
    clang -g -O2 -Wall -Wextra -Werror -Wno-unused-parameter -target bpf -mcpu=v3 \
        -I"/usr/include/$(uname -m)-linux-gnu" -ffile-prefix-map="$PWD"=. -c "$source" -o "$object"
    llvm-strip -g "$object"
done
