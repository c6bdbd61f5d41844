# What the jobs in dom0 share: the daemon, guests, checks. Sourced by bash.

results=/tmp/results
daemon_log=$results/daemon.log
passed=0 failed=0

lab_setup() {
    mkdir -p "$results" /images
    mount -t tmpfs -o size=1200M images /images
    install -D /job/ublkback /usr/sbin/ublkback
    install -D /job/block-ublkback /etc/xen/scripts/block-ublkback
}

# The NVMe disk with a serial number; "tools" is a copy of dom0's root that guests may mount.
disk_with_serial() {
    local controller
    for controller in /sys/class/nvme/*; do
        if [ "$(tr -d ' ' <"$controller/serial")" = "$1" ]; then echo "/dev/$(basename "$controller")n1"; fi
    done
}
tools=$(disk_with_serial tools)

say() { echo "[$(cut -d' ' -f1 /proc/uptime)] $*"; }

# await SECONDS FILE PATTERN: until a line of a growing file matches.
await() {
    local status tail
    exec 9< <(exec tail -n +1 -F "$2" 2>/dev/null)
    tail=$!
    timeout "$1" grep -m1 -q -e "$3" <&9
    status=$?
    kill "$tail" 2>/dev/null
    exec 9<&-
    return $status
}

# await_node SECONDS PATH VALUE: until a node of the store has a value ("" means: is gone).
await_node() {
    local deadline=$((SECONDS + $1)) fd
    exec 8< <(exec xenstore-watch "$2" 2>/dev/null)
    local watcher=$!
    while [ "$(xenstore-read "$2" 2>/dev/null)" != "$3" ]; do
        if ! read -r -t $((deadline - SECONDS > 0 ? deadline - SECONDS : 1)) -u 8 || [ $SECONDS -gt $deadline ]; then
            kill $watcher; exec 8<&-; return 1
        fi
    done
    kill $watcher
    exec 8<&-
}

daemon_start() {
    /usr/sbin/ublkback daemon 2>>"$daemon_log" &
    daemon=$!
    await 60 "$daemon_log" "serving the vbds" || { say "the daemon did not start"; cat "$daemon_log"; return 1; }
}

# guest_start NAME MEMORY DISK...: a guest that is ready to obey. Disks are strings of xl's syntax.
guest_start() {
    local name=$1 memory=$2 disks="" disk
    shift 2
    for disk in "$@"; do disks="$disks'$disk',"; done
    cat >"/tmp/$name.cfg" <<CONFIG
name = "$name"
kernel = "/job/vmlinuz"
ramdisk = "/job/guest.cpio.gz"
memory = $memory
vcpus = 1
cmdline = "console=hvc0 quiet panic=1 ${guest_cmdline:-}"
on_poweroff = "destroy"
on_reboot = "restart"
on_crash = "destroy"
disk = [ ${disks}'phy:$tools,xvdz,r' ]
CONFIG
    rm -f "/tmp/guest-$name.log"
    xl create "/tmp/$name.cfg" >"/tmp/xl-$name.log" 2>&1 || { cat "/tmp/xl-$name.log"; return 1; }
    guest_ready "$name"
}

guest_ready() { await 120 "/tmp/guest-$1.log" GUEST-READY || { tail -30 "/tmp/guest-$1.log"; return 1; }; }

domid() { xl domid "$1"; }

# guest NAME COMMAND: runs it in the guest, shows its output, returns its status. GUEST_SECONDS bounds it.
commands=0
guest() {
    local name=$1 number tty log="/tmp/guest-$1.log" status
    commands=$((commands + 1))
    number=$commands
    tty=$(xenstore-read "/local/domain/$(domid "$name")/console/tty") || return 1
    local start=$(($(wc -l <"$log") + 1))
    printf '%s %s\n' "$number" "$2" >"$tty"
    if ! await "${GUEST_SECONDS:-120}" "$log" "^GUEST-DONE $number "; then
        say "guest $name: no answer to: $2"
        tail -40 "$log"
        return 124
    fi
    status=$(sed -n "s/^GUEST-DONE $number \([0-9]*\).*/\1/p" "$log" | tail -1)
    tail -n +"$start" "$log" | sed "/^GUEST-DONE $number /,\$d"
    return "${status:-125}"
}

# Everything that a disk may leave behind in dom0 or in the store.
leftovers() {
    local address
    for address in "$@"; do
        xenstore-ls -f /local/domain/0/backend 2>/dev/null | grep -E "/$address " && return 1
        xenstore-ls -f /local/domain/0/error 2>/dev/null | grep -E "/$address/" && return 1
    done
    return 0
}

# What the daemon holds: descriptors of images and event channels, mappings of grants, locks.
holdings() {
    ls -l /proc/"$daemon"/fd 2>/dev/null | grep -c -E '/images/|/dev/loop|/dev/xen/evtchn'
    grep -c gntdev /proc/"$daemon"/maps
}

dump() {
    say "--- store"; xenstore-ls -f /local/domain/0/backend
    say "--- daemon"; tail -40 "$daemon_log"
    say "--- xen"; xl dmesg | tail -20
    say "--- kernel"; dmesg | tail -20
}

# scenario NAME FUNCTION: one test. It runs in a shell of its own, stops at the first command that fails, and its
# output is shown when it does.
scenario() {
    local name=$1 started=$SECONDS
    shift
    if [ -n "${ONLY:-}" ] && ! [[ $name =~ $ONLY ]]; then return; fi
    (set -e; "$@") >"/tmp/scenario.log" 2>&1
    if [ $? -eq 0 ]; then
        passed=$((passed + 1))
        say "ok $name ($((SECONDS - started)) s)"
    else
        failed=$((failed + 1))
        say "not ok $name ($((SECONDS - started)) s)"
        sed 's/^/    /' /tmp/scenario.log
        dump | sed 's/^/    /'
    fi
}
