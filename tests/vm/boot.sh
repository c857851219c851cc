# shellcheck shell=bash
# Sourced: boots the test machine, which QEMU emulates, or which is a process of user-mode Linux.
#
#   vm_options "$@"         "--name value" sets the variable of that name, which must be there
#   vm_on_each COMMAND KERNEL   runs COMMAND VERSION for each version that KERNEL means, a series, a
#                           version or "all" (those of Debian's releases), with what it needs built and nobody else at it (but
#                           who has set "machine", the name of another one); fails if one did
#   vm_job DIR FILTER [NAME=VALUE]
#                           makes DIR/job: the cases that the GoogleTest filter picks
#
#   vm_boot VERSION DIR     boots DIR/job (an executable file, run by init as /job; DIR/history, if
#                           there is one, is /history) and returns when the machine is off. In DIR
#                           it finds or leaves
#       main.img spare.img extra.img   the disks, /dev/disk/* inside; made when missing, and kept:
#                                      boot the same DIR again and it is the same disks
#       log, console                   the job's output; the kernel's
#       acks                           what the job writes to /dev/host/acks
#       pid                            of the machine, for those who want to kill it
#
# Prints what the job writes to /dev/host/verdict, line by line as it comes. A line "kill ..." ends
# the machine at once, by SIGKILL, as if the power was cut (what was submitted to the disks is in
# the host's page cache, hence survives). A machine that says nothing, there or in the log or the
# acks, for VM_SILENCE seconds (180; debug and kcsan: 600) is killed as well, and the last line is then
# "silent".
#
# One that ends before the job has said a word is booted again, twice at most: without KVM, QEMU now
# and then executes an instruction that the kernel is just patching, and the kernel dies of it in
# its own boot.

VM_DISKS=(main:2G spare:1G extra:1G)
VM_PORTS=(verdict log acks)
VM_CPU=() # QEMU's options for processor and memory, if others than usual are wanted
VM_PARALLEL= # not empty: the emulated processors run at once; of user-mode Linux, debug has two
VM_BAD=      # not empty: disks with bad sectors, too, behind QEMU's controllers
VM_SYSTEM=   # where initramfs.cpio and, if any, system.img are, if not in build/vm/VERSION

# A /dev/kvm can be there and not work; the CPU's flags tell. Emulated processors take turns in one
# thread: with a thread for each, and no host processor for each, they wait for one another's locks
# most of the time. Only those that run at once interleave anywhere; taking turns, where one idles,
# waits for a lock, or has had 100 ms.
vm_accelerator() { # vm_accelerator VERSION
    if [[ $1 == *-um-* ]]; then
        echo 'user-mode Linux'
    elif grep -qwE 'vmx|svm' /proc/cpuinfo && [[ -w /dev/kvm ]]; then
        echo kvm
    elif [[ -n $VM_PARALLEL ]]; then
        echo tcg,thread=multi
    else
        echo tcg,thread=single
    fi
}

# The header of the script that sources this says how to use it.
vm_options() {
    while [[ $# -gt 0 ]]; do
        if [[ $1 != --* || ! -v ${1#--} || $# -eq 1 ]]; then
            sed -n '2,/^set/s/^# \?//p' "$0" >&2
            exit 2
        fi
        printf -v "${1#--}" %s "$2"
        shift 2
    done
}

vm_on_each() {
    local command=$1 kernels=$2 one version status=0
    [[ $kernels != all ]] || kernels=$(scripts/kernels.sh series)
    for one in $kernels; do
        version=$(scripts/kernels.sh version "$one")
        mkdir -p "build/vm/$version" build/results
        exec 9>"build/vm/$version/lock${machine:+-$machine}"
        flock -n 9 || { echo "waiting for another run on $version" && flock 9; }
        (flock 8 && scripts/kernels.sh fetch "$version" >/dev/null &&
            make -s module KVER="$version" KDIR="$(scripts/kernels.sh headers "$version")" &&
            make -s vm-programs && tests/vm/initramfs.sh "$version") 8>build/lock >&2
        "$command" "$version" || status=1
    done
    return $status
}

vm_job() {
    printf '#!/bin/sh\nexec env %s vm-cases --gtest_color=no --gtest_filter=%s\n' "${3:-}" "$2" \
        >"$1/job"
    chmod +x "$1/job"
}

vm_boot() {
    local dir=$2 try
    for try in first second last; do
        vm_boot_once "$@"
        [[ ! -s $dir/log && ! -s $dir/verdict ]] || return 0
        echo "The machine ended in its own boot, the $try time:" >&2
        tail -n 20 "$dir/console" >&2
    done
}

# Disks of one image with bad sectors (few_commands.cpp), behind QEMU's controllers, in the options
# "args". Those of virtio are /dev/disk/bad-512n, -512e and -4Kn. Of NVMe there are 512n and 4Kn, for
# whoever loads the driver.
vm_bad_disks() { # vm_bad_disks DIR
    local image=$1/bad.img sector rules=() name blocks
    rm -f "$image"
    truncate -s 16M "$image"
    for sector in 10248 {18440..18456..16} {26632..27256..16}; do
        rules+=("{\"event\": \"none\", \"sector\": $sector, \"once\": false}")
    done
    args+=(-device "nvme,serial=bad" -blockdev "{
        \"driver\": \"blkdebug\", \"node-name\": \"bad\", \"cache\": {\"no-flush\": true},
        \"image\": {\"driver\": \"file\", \"filename\": \"$image\"},
        \"inject-error\": [$(IFS=, && echo "${rules[*]}")]}")
    for name in 512n 512e 4Kn; do
        blocks=logical_block_size=512,physical_block_size=4096
        [[ $name != 512n ]] || blocks=${blocks/4096/512}
        [[ $name != 4Kn ]] || blocks=${blocks/512/4096}
        args+=(-device "virtio-blk-pci,drive=bad,share-rw=on,serial=bad-$name,$blocks")
        [[ $name == 512e ]] || args+=(-device "nvme-ns,drive=bad,share-rw=on,$blocks")
    done
}

# vm_start_* VERSION DIR MEMORY OPTIONS: starts the machine in the background. Of the options for the
# kernel, these come on top.

vm_start_qemu() {
    local version=$1 dir=$2 memory=$3 options=$4 disk port kernel args=() cpu
    local system=${VM_SYSTEM:-build/vm/$1}/system.img
    # Half of the kernel's boot, emulated, would be tests of ciphers and keys that nobody uses here.
    options+=' cryptomgr.notests=1 initcall_blacklist=crypto_kdf108_init,init_encrypted,jent_mod_init'
    cpu=(-accel "$(vm_accelerator "$version")" -smp 2 -m "$memory")
    [[ ${#VM_CPU[@]} -eq 0 ]] || cpu=("${VM_CPU[@]}")
    kernel=$(scripts/kernels.sh fetch "$version")
    for disk in "${VM_DISKS[@]}"; do
        args+=(-drive "if=none,id=${disk%:*},file=$dir/${disk%:*}.img,format=raw,discard=unmap"
            -device "virtio-blk-pci,drive=${disk%:*},serial=${disk%:*}")
    done
    [[ -z $VM_BAD ]] || vm_bad_disks "$dir"
    [[ ! -e $system ]] ||
        args+=(-drive "if=none,id=system,file=$system,format=raw,readonly=on"
            -device "virtio-blk-pci,drive=system,serial=system")
    for port in "${VM_PORTS[@]}"; do
        args+=(-chardev "file,id=$port,path=$dir/$port"
            -device "virtserialport,chardev=$port,name=$port")
    done
    # With erms and fsrm, memory is moved byte by byte, which is quick on a real processor alone.
    qemu-system-x86_64 "${cpu[@]}" -cpu max,-erms,-fsrm \
        -nodefaults -display none -no-reboot -device virtio-serial-pci \
        -kernel "$kernel/vmlinux" -initrd "$dir/initrd" \
        -append "console=ttyS0 mitigations=off $options" \
        -chardev "file,id=console,path=$dir/console" -serial chardev:console \
        "${args[@]}" </dev/null >&2 2> >(grep -v 'aio failed: Input/output error' >&2) &
}

# Disks are files, ports serial lines, and /usr is a directory of the host: init gives them their names.
vm_start_um() {
    local version=$1 dir=$PWD/$2 memory=$3 options=$4 kernel args=() i
    kernel=$(scripts/kernels.sh fetch "$version")
    for i in "${!VM_DISKS[@]}"; do
        args+=("ubd$i=$dir/${VM_DISKS[$i]%:*}.img")
    done
    # A tick is 10 ms, and a grace period lasts several.
    args+=(rcupdate.rcu_expedited=1)
    case $version in
    # A second processor costs time, and shows something where cases race alone. With ptrace(), which
    # is the other way to run programs, there is none.
    *-debug-*) args+=(seccomp=on "ncpus=$((${VM_PARALLEL:+1} + 1))") ;;
    # kmemleak takes two thirds of the time.
    *) args+=(kmemleak=off seccomp=on) ;;
    esac
    # shellcheck disable=SC2086 # the options are words
    "$kernel/linux" mem="$memory" initrd="$dir/initrd" "${args[@]}" \
        con=null con0=null,fd:1 ssl=null ssl0=null,fd:5 ssl1=null,fd:6 ssl2=null,fd:7 \
        "usr=$PWD/build/vm/$version/root/usr" $options \
        5>>"$dir/verdict" 6>>"$dir/log" 7>>"$dir/acks" </dev/null >"$dir/console" 2>&1 &
}

vm_boot_once() {
    local version=$1 dir=$2 disk image port machine verdict line part last never look=0
    # Who waits for I/O longer than the hung task's timeout hangs, even on a slow machine.
    local silence=180 memory=1G options='sysctl.kernel.hung_task_timeout_secs=60'
    case $version in
    *-debug-* | *-kcsan-*)
        # Everything takes several times as long.
        silence=600
        options='sysctl.kernel.hung_task_timeout_secs=240 watchdog_thresh=60'
        ;;
    esac
    case $version in
    *-debug-*)
        # By default KASAN falls silent after its first report. Of what was freed it keeps a 32nd of the
        # memory, so more memory leaves less to a case that has 80 MB left; its shadow is the host's.
        options+=' kasan_multi_shot'
        ;;
    *-kcsan-*)
        # ACPI would speak of interrupts that nobody uses, since these disks have MSI: half a minute
        # for each of them.
        options+=' acpi=noirq'
        ;;
    esac
    # A crash ends the machine, there is nothing to wait for. So does a task that hangs: the console has
    # its stack then. The log buffer holds what a case can say; the harness reads it all.
    options+=' loglevel=5 log_buf_len=4M oops=panic panic=-1 sysctl.kernel.hung_task_panic=1'

    for disk in "${VM_DISKS[@]}"; do
        image=$dir/${disk%:*}.img
        [[ -e $image ]] || truncate -s "${disk#*:}" "$image"
    done
    for port in "${VM_PORTS[@]}"; do
        : >"$dir/$port"
    done
    cat "${VM_SYSTEM:-build/vm/$version}/initramfs.cpio" - >"$dir/initrd" \
        < <(cd "$dir" && find job history 2>/dev/null | cpio -o -H newc --quiet)

    case $version in
    *-um-*) vm_start_um "$version" "$dir" "$memory" "$options" ;;
    *) vm_start_qemu "$version" "$dir" "$memory" "$options" ;;
    esac
    machine=$!
    echo "$machine" >"$dir/pid"
    # shellcheck disable=SC2064 # this one's id
    trap "kill -9 $machine 2>/dev/null; exit 130" INT TERM

    exec {verdict}<"$dir/verdict" {never}<> <(:)
    line=
    while :; do
        # What there is to read now; at the end of the file comes the part of a line, or nothing.
        while IFS= read -r -u "$verdict" part; do
            line+=$part
            echo "$line"
            [[ $line != kill\ * ]] || kill -9 $machine
            line=
        done
        line+=$part
        [[ -n $machine ]] || break
        if ! kill -0 $machine 2>/dev/null; then
            wait $machine 2>/dev/null || true
            machine= # one more look: it may have spoken just before
            continue
        fi
        if ((SECONDS >= look)); then
            look=$((SECONDS + 5))
            last=$(stat -c %Y "$dir/verdict" "$dir/log" "$dir/acks" | sort -n | tail -n 1)
            if (($(date +%s) - last > ${VM_SILENCE:-$silence})); then
                echo silent
                kill -9 $machine
            fi
        fi
        # Sleep. A process for it, so many times a second, would be seen in the machine's time.
        read -r -t 0.05 -u "$never" || true
    done
    exec {verdict}<&- {never}<&-
    trap - INT TERM
    rm -f "$dir/initrd" "$dir/pid"
}
