# Waiting for a line, in dom0's jobs and in the scripts that start them. Sourced by bash.

# await SECONDS FILE PATTERN: until a line of a growing file matches.
await() {
    local status tail
    exec 9< <(exec tail -n +1 -F "$2" 2>/dev/null)
    tail=$!
    timeout "$1" grep -a -m1 -q -e "$3" <&9
    status=$?
    kill "$tail" 2>/dev/null
    exec 9<&-
    return $status
}
