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

# fails COMMAND...: it does, and otherwise the scenario does. ("! COMMAND" would go on in either case.)
fails() { if "$@"; then echo "this did not fail: $*"; return 1; fi; }

say() { echo "[$(cut -d' ' -f1 /proc/uptime)] $*"; }

. "$(dirname "${BASH_SOURCE[0]}")/await.sh"

daemon_start() {
    /usr/sbin/ublkback daemon 2>>"$daemon_log" &
    daemon=$!
    await 60 "$daemon_log" "serving the vbds" || { say "the daemon did not start"; cat "$daemon_log"; return 1; }
}

# guest_start NAME MEMORY DISK...: a guest that is ready to obey. Disks are strings of xl's syntax. guest_vcpus and
# guest_cmdline, if set, are its number of processors and further words for its kernel.
guest_start() {
    local name=$1 memory=$2 disks="" disk
    shift 2
    for disk in "$@"; do disks="$disks'$disk',"; done
    cat >"/tmp/$name.cfg" <<CONFIG
name = "$name"
kernel = "/job/vmlinuz"
ramdisk = "/job/guest.cpio.gz"
memory = $memory
vcpus = ${guest_vcpus:-1}
cmdline = "console=hvc0 quiet panic=1 ${guest_cmdline:-}"
on_poweroff = "destroy"
on_reboot = "restart"
on_crash = "destroy"
disk = [ ${disks}'${tools_disk:-phy:$tools,xvdz,r}' ]
CONFIG
    rm -f "/tmp/guest-$name.log"
    xl create "/tmp/$name.cfg" >"/tmp/xl-$name.log" 2>&1 || { cat "/tmp/xl-$name.log"; return 1; }
    guest_ready "$name"
}

guest_ready() { await 180 "/tmp/guest-$1.log" "${2:-GUEST-READY}" || { tail -80 "/tmp/guest-$1.log"; return 1; }; }

domid() { xl domid "$1"; }

# guest NAME COMMAND: runs it in the guest, shows its output, returns its status. GUEST_SECONDS bounds it.
guest() {
    local name=$1 number tty log="/tmp/guest-$1.log" status
    number=$(date +%s%N) # unique also among subshells
    tty=$(xenstore-read "/local/domain/$(domid "$name")/console/tty") || return 1
    local start=$(($(wc -l <"$log") + 1))
    printf '%s %s\n' "$number" "$2" >"$tty"
    if ! await "${GUEST_SECONDS:-120}" "$log" "GUEST-DONE $number "; then
        say "guest $name: no answer to: $2"
        tail -40 "$log"
        return 124
    fi
    status=$(sed -n "s/.*GUEST-DONE $number \([0-9]*\).*/\1/p" "$log" | tail -1)
    tail -n +"$start" "$log" | sed "/GUEST-DONE $number /{s/GUEST-DONE $number .*//;/^$/d;q}"
    return "${status:-125}"
}

# guest_disk NAME DEVICE: waits until the guest has the disk.
guest_disk() { guest "$1" "for i in \$(seq 300); do [ -b /dev/$2 ] && [ \$(cat /sys/block/$2/size) -gt 0 ] && exit 0; sleep 0.1; done; exit 1"; }

# spec DEVICE TARGET [ACCESS]: a disk of ours in xl's syntax.
spec() { echo "vdev=$1,format=raw,access=${3:-rw},script=block-ublkback,target=$2"; }

# image NAME [SIZE]: a fresh file for a disk.
image() { rm -f "/images/$1"; truncate -s "${2:-64M}" "/images/$1"; }

# For the guest's fio: writes, reads back and checks. verified GUEST waits for its end, if it runs in the background.
verify="fio --eta=never --name=verify --ioengine=libaio --direct=1 --rw=randrw --bs=4k --iodepth=32 --verify=crc32c --do_verify=1 --verify_fatal=1 --output=/guest/fio.out"
verified() { guest "$1" "while pgrep -x fio >/dev/null; do sleep 0.2; done; grep -q 'err= 0' /guest/fio.out && ! dmesg | grep -i 'I/O error'"; }

# sum_of GUEST DEVICE: checksum of the whole disk as the guest reads it past its cache.
sum_of() { guest "$1" "dd if=/dev/$2 bs=1M iflag=direct status=none | sha256sum" | cut -d' ' -f1; }

# same_sum DEVICE FILE [GUEST]: the guest reads what the file holds.
same_sum() {
    local seen own
    seen=$(sum_of "${3:-g1}" "$1")
    own=$(sha256sum "$2" | cut -d' ' -f1)
    echo "guest $seen, dom0 $own"
    [ -n "$seen" ] && [ "$seen" = "$own" ]
}

# left_behind DEVICE-ID FILE: fails if a disk that is gone left a node in the store, or the daemon still holds its file
# or a lock on it, or has more pages mapped or event channels bound than its connected disks account for.
left_behind() {
    if xenstore-ls -f /local/domain/0 2>/dev/null | grep -E "/(backend|error)/.*/$1[/ ]"; then say "nodes are left"; return 1; fi
    if ls -l "/proc/$daemon/fd" | grep -F "$2"; then say "the daemon holds $2"; return 1; fi
    if grep -E "OFDLCK.*:$(stat -c %i "$2") " /proc/locks; then say "a lock on $2 is left"; return 1; fi
    local try
    for try in 1 2 3 4 5; do accounts_agree && return; done # a disk in use may have pages mapped in between
    say "grant mappings or event channels are left"
    accounts_agree
}

# accounts_agree: the daemon's own account of rings and pages is the kernel's.
accounts_agree() {
    local pages queues mapped bound
    read -r pages queues < <(ublkback list --json | tr -d ',' | awk '
        /"queues":/ {queues = $2} /"ringSlots":/ {slots = $2} /"persistentPages":/ {pages += $2}
        /"inFlight":/ {pages += queues * slots / 32; all += queues; queues = 0; slots = 0}
        END {print pages + 0, all + 0}')
    mapped=$(awk '/\/dev\/xen\/gntdev/ {split($1, a, "-"); print a[1], a[2]}' "/proc/$daemon/maps" |
        while read -r start end; do echo $(((0x$end - 0x$start) / 4096)); done | awk '{n += $1} END {print n + 0}')
    bound=$(ls -l "/proc/$daemon/fd" | grep -c /dev/xen/evtchn || true)
    echo "pages: $pages accounted for, $mapped mapped; event channels: $queues and $bound"
    [ "$pages" -eq "$mapped" ] && [ "$queues" -eq "$bound" ]
}

dump() {
    say "--- store"; xenstore-ls -f /local/domain/0/backend | grep -E '/(state|online|hotplug-[a-z]*|params) = '
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
